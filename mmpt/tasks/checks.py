"""Checks of a run's classes and settings before anything is built from them.

`Task.from_config` calls `check_classes`. The launcher also makes an item of each small data set and
checks the model's sizes, so that a mistake is reported before the training processes start.
"""

from collections.abc import Iterator
from typing import Any

import torch

from mmpt.config import RunConfig
from mmpt.datasets import MMDataset
from mmpt.errors import ConfigError, UserError
from mmpt.evaluators import METRICS, PREDICTORS
from mmpt.losses import LOSSES, Loss
from mmpt.models import MODELS, MMFusionSeparate
from mmpt.models.compilation import check_compiler
from mmpt.processors import ShardedHow2VideoRetriMetaProcessor
from mmpt.processors.base import PARTS
from mmpt.registry import Registry
from mmpt.retrieval import RETRIEVERS, VECTOR_POOLS


def part_classes(config: RunConfig) -> dict[str, Any]:
    """Returns the classes of the four parts of an item, by their keys under `dataset`.

    Raises:
        ConfigError: an unknown name.
    """
    dataset = config.dataset
    return {
        key: registry.get(getattr(dataset, key) or "", f"dataset.{key}")
        for key, registry in PARTS.items()
    }


def check_classes(config: RunConfig, tasks: Registry[Any]) -> None:
    """Checks every class that a YAML names: that it exists, and that it works with the others.

    Args:
        tasks: the classes that `task` can name.
    Raises:
        ConfigError: lists every unknown name with the nearest known one, or every misfit.
    """
    # Classes can only be compared once all of them are known.
    problems = list(_unknown_names(config, tasks)) or list(_misfits(config, tasks))
    if problems:
        raise ConfigError(str(config.path), problems)


def _unknown_names(config: RunConfig, tasks: Registry[Any]) -> Iterator[str]:
    dataset, retrieval, loss = config.dataset, config.retrieval, config.loss
    names: list[tuple[Registry[Any], str | None, str]] = [(tasks, config.task, "task")]
    for key, registry in PARTS.items():
        names.append((registry, getattr(dataset, key), f"dataset.{key}"))
    names += [
        (MODELS, config.model.model_cls, "model.model_cls"),
        (LOSSES, loss.loss_cls if loss else None, "loss.loss_cls"),
        (VECTOR_POOLS, retrieval.vectorpool_cls, "vectorpool_cls"),
        (RETRIEVERS, retrieval.retriever_cls, "retriever_cls"),
        (PREDICTORS, config.predictor, "predictor"),
    ]
    names += [(METRICS, name, "metric") for name in config.metric]
    for registry, name, key in names:
        try:
            if name is not None:
                registry.get(name, key)
        except ConfigError as err:
            yield from (f"`{key}`: {problem}" for problem in err.problems)


def _misfits(config: RunConfig, tasks: Registry[Any]) -> Iterator[str]:
    """Yields a sentence for classes that exist but do not work together."""
    parts = part_classes(config)
    meta, aligner = parts["meta_processor"], parts["aligner"]
    batched = [key for key, part in parts.items() if part.takes_batches]
    if 0 < len(batched) < len(parts):
        names = ", ".join(f"`{key}: {getattr(config.dataset, key)}`" for key in batched)
        yield (
            f"under `dataset`, {names} work on whole batches of videos, but the other parts on "
            "single videos."
        )
    if config.batch_size != 1 and aligner.fills_batch:
        yield (
            f"`fairseq.dataset.batch_size` must be 1 with `dataset.aligner: {aligner.__name__}`, "
            f"whose items are whole videos of any length, but is {config.batch_size}."
        )
    task_cls = tasks.get(config.task or "Task", "task")
    planned = ShardedHow2VideoRetriMetaProcessor
    if task_cls.plans_batches and not config.is_test and not issubclass(meta, planned):
        yield (
            f"`dataset.meta_processor` must be `{planned.__name__}` with `task: {config.task}`, "
            f"but is `{meta.__name__}`."
        )
    if config.predictor is not None:
        makes = PREDICTORS.get(config.predictor, "predictor").makes
        for name in config.metric:
            takes = METRICS.get(name, "metric").takes
            if not issubclass(makes, takes):
                yield (
                    f"`metric: {name}` takes {takes.__name__}, but `predictor: "
                    f"{config.predictor}` makes {makes.__name__}."
                )
    model = config.model.model_cls
    if model and not hasattr(MODELS.get(model, "model.model_cls"), "from_config"):
        yield (
            f"`model.model_cls: {model}` must have a class method `from_config`, as "
            "`MMFusionSeparate` has."
        )


def check_loss(config: RunConfig, loss: Loss) -> None:
    """Raises ConfigError unless the model returns everything that the loss reads."""
    name = config.model.model_cls
    model_cls = MODELS.get(name or "", "model.model_cls")
    outputs = getattr(model_cls, "outputs", None)
    if outputs is None:  # a user's own model need not list them
        return
    if missing := [name for name in loss.inputs if name not in outputs]:
        assert config.loss is not None, "checked by the config"
        problem = (
            f"`loss.loss_cls: {config.loss.loss_cls}` needs {', '.join(missing)}, but "
            f"`model.model_cls: {name}` returns {', '.join(outputs)}."
        )
        raise ConfigError(str(config.path), [problem])


def check_model(config: RunConfig) -> None:
    """Checks the sizes of the model, and that there is a compiler if it is to be compiled.

    The model is not built, and no GPU is used. A user's own model checks its settings when a
    training process builds it.

    Raises:
        ConfigError: settings do not fit the model, or there is no compiler.
        CheckpointError: BERT cannot be read.
    """
    model_cls = MODELS.get(config.model.model_cls or "", "model.model_cls")
    if issubclass(model_cls, MMFusionSeparate):
        model_cls.check_config(config.dataset, config.model)
    device = training_device(config)
    if config.model.compile and device.type == "cpu":
        check_compiler(device)


def training_device(config: RunConfig) -> torch.device:
    """Returns the kind of device on which a run trains."""
    on_gpu = torch.cuda.is_available() and not config.option("common", "cpu", False)
    return torch.device("cuda" if on_gpu else "cpu")


def make_item(config: RunConfig, dataset: MMDataset, position: int) -> dict[str, Any]:
    """Returns one item of a data set.

    Raises:
        ConfigError: the parts under `dataset` cannot make it.
        DataError: its features or its text are damaged.
    """
    try:
        return {**dataset[position]}
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        problem = (
            f"{named_parts(config)} must belong together, but cannot make an item "
            f"({type(err).__name__}: {err})."
        )
        raise ConfigError(config.path, [problem]) from err


def named_parts(config: RunConfig) -> str:
    """Returns the four parts of an item as the YAML names them, for messages."""
    return ", ".join(f"`{key}: {getattr(config.dataset, key)}`" for key in PARTS)
