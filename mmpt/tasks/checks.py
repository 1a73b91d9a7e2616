"""Checks of a run's classes and settings before anything is built from them.

`Task.from_config` calls `check_classes`. The launcher also makes an item of each small data set and
checks the model's sizes, so that a mistake is reported before the training processes start.
"""

from collections.abc import Iterable, Iterator
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
    classes = {}
    for key, registry in PARTS.items():
        name = getattr(config.dataset, key) or ""
        classes[key] = registry.get(name, f"dataset.{key}")
    return classes


def check_classes(config: RunConfig, tasks: Registry[Any]) -> None:
    """Checks every class that a YAML names: that it exists, and that it works with the others.

    Args:
        tasks: the classes that `task` can name.
    Raises:
        ConfigError: lists every unknown name with the nearest known one, or every misfit.
    """
    # Classes can only be compared once all of them are known.
    problems = list(_unknown_names(config, tasks))
    if not problems:
        problems = list(_misfits(config, tasks))
    if problems:
        raise ConfigError(str(config.path), problems)


def _unknown_names(config: RunConfig, tasks: Registry[Any]) -> Iterator[str]:
    """Yields a sentence for every class that does not exist."""
    yield from _problems_of(tasks, config.task, "task")
    for key, registry in PARTS.items():
        name = getattr(config.dataset, key)
        yield from _problems_of(registry, name, f"dataset.{key}")
    yield from _problems_of(MODELS, config.model.model_cls, "model.model_cls")
    if config.loss is not None:
        yield from _problems_of(LOSSES, config.loss.loss_cls, "loss.loss_cls")
    yield from _problems_of(
        VECTOR_POOLS, config.retrieval.vectorpool_cls, "vectorpool_cls"
    )
    yield from _problems_of(RETRIEVERS, config.retrieval.retriever_cls, "retriever_cls")
    yield from _problems_of(PREDICTORS, config.predictor, "predictor")
    for name in config.metric:
        yield from _problems_of(METRICS, name, "metric")


def _problems_of(registry: Registry[Any], name: str | None, key: str) -> list[str]:
    """Returns a sentence for each mistake in the class name at `key`. None names no class."""
    if name is None:
        return []
    try:
        registry.get(name, key)
    except ConfigError as err:
        return [f"`{key}`: {problem}" for problem in err.problems]
    return []


def _misfits(config: RunConfig, tasks: Registry[Any]) -> Iterator[str]:
    """Yields a sentence for classes that exist but do not work together."""
    yield from _part_misfits(config, tasks)
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
    if model:
        model_cls = MODELS.get(model, "model.model_cls")
        if not hasattr(model_cls, "from_config"):
            yield (
                f"`model.model_cls: {model}` must have a class method `from_config`, as "
                "`MMFusionSeparate` has."
            )


def _part_misfits(config: RunConfig, tasks: Registry[Any]) -> Iterator[str]:
    """Yields a sentence for parts of an item that do not fit each other or the task."""
    parts = part_classes(config)
    batched = [key for key, part in parts.items() if part.takes_batches]
    if 0 < len(batched) < len(parts):
        yield (
            f"under `dataset`, {named_parts(config, batched)} work on whole batches of videos, but "
            "the other parts on single videos."
        )
    aligner = parts["aligner"]
    if config.batch_size != 1 and aligner.fills_batch:
        yield (
            f"`fairseq.dataset.batch_size` must be 1 with `dataset.aligner: {aligner.__name__}`, "
            f"whose items are whole videos of any length, but is {config.batch_size}."
        )
    task_cls = tasks.get(config.task or "Task", "task")
    meta = parts["meta_processor"]
    planned = ShardedHow2VideoRetriMetaProcessor
    plans_batches = task_cls.plans_batches and not config.is_test
    if plans_batches and not issubclass(meta, planned):
        yield (
            f"`dataset.meta_processor` must be `{planned.__name__}` with `task: {config.task}`, "
            f"but is `{meta.__name__}`."
        )


def check_loss(config: RunConfig, loss: Loss) -> None:
    """Raises ConfigError unless the model returns everything that the loss reads."""
    model_name = config.model.model_cls
    model_cls = MODELS.get(model_name or "", "model.model_cls")
    outputs = getattr(model_cls, "outputs", None)
    if outputs is None:  # a user's own model need not list them
        return
    missing = [name for name in loss.inputs if name not in outputs]
    if missing:
        assert config.loss is not None, "checked by the config"
        needed = ", ".join(missing)
        returned = ", ".join(outputs)
        problem = (
            f"`loss.loss_cls: {config.loss.loss_cls}` needs {needed}, but `model.model_cls: "
            f"{model_name}` returns {returned}."
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
    asks_for_cpu = config.option("common", "cpu", False)
    if asks_for_cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


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


def named_parts(config: RunConfig, keys: Iterable[str] = tuple(PARTS)) -> str:
    """Returns parts of an item, by default all four, as the YAML names them, for messages."""
    parts = []
    for key in keys:
        name = getattr(config.dataset, key)
        parts.append(f"`{key}: {name}`")
    return ", ".join(parts)
