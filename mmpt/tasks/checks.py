"""Checks of a run's classes, data, model and start checkpoint. Nothing is trained or scored.

`Task` checks the classes that a YAML names before it builds one: that they exist, and that they
work together. The launcher also makes an item of each small data set, and checks the sizes of the
model and the checkpoint to start from, so that a mistake is reported before the training processes
start.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.config.run import DEMO_COMMANDS, LAST, last_checkpoint
from mmpt.datasets import MMDataset
from mmpt.errors import CheckpointError, ConfigError, UserError
from mmpt.evaluators import METRICS, PREDICTORS
from mmpt.inference.origin import find_other_features, find_other_rate
from mmpt.losses import LOSSES, Loss
from mmpt.models import MODELS, MMFusionSeparate
from mmpt.models.checkpoint import check_training_checkpoint
from mmpt.models.checkpoint_folder import newest_intact, repair_last
from mmpt.models.compilation import check_compiler, training_device
from mmpt.processors import ShardedHow2VideoRetriMetaProcessor
from mmpt.processors.base import PARTS
from mmpt.registry import Registry
from mmpt.retrieval import RETRIEVERS, VECTOR_POOLS
from mmpt.utils.log import get_logger

if TYPE_CHECKING:
    from mmpt.tasks.task import Task

logger = get_logger(__name__)

OTHER_FEATURES = (
    "`model.layernorm_only` does not train the layer that takes the features. Set it to false, "
    "start from BERT, or correct `dataset.vfeat_dir`."
)


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


def check_classes(config: RunConfig, tasks: Registry[Task]) -> None:
    """Checks every class that a YAML names: that it exists, and that it works with the others.

    Args:
        config: the whole run.
        tasks: the known tasks.
    Raises:
        ConfigError: lists every unknown name with the nearest known one, or every incompatibility.
    """
    # Classes can only be compared once all of them are known.
    problems = list(_unknown_names(config, tasks))
    if not problems:
        problems = list(_incompatible_classes(config, tasks))
    if problems:
        raise ConfigError(str(config.path), problems)


def _unknown_names(config: RunConfig, tasks: Registry[Task]) -> Iterator[str]:
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


def _incompatible_classes(config: RunConfig, tasks: Registry[Task]) -> Iterator[str]:
    """Yields a sentence for classes that exist but do not work together."""
    task_cls = tasks.get(config.task or "Task", "task")
    yield from _incompatible_parts(config, plans_batches=task_cls.plans_batches)
    if config.predictor is not None:
        output_type = PREDICTORS.get(config.predictor, "predictor").output_type
        for name in config.metric:
            input_type = METRICS.get(name, "metric").input_type
            if not issubclass(output_type, input_type):
                yield (
                    f"`metric: {name}` takes {input_type.__name__}, but `predictor: "
                    f"{config.predictor}` makes {output_type.__name__}."
                )
    model = config.model.model_cls
    if model:
        model_cls = MODELS.get(model, "model.model_cls")
        if not hasattr(model_cls, "from_config"):
            yield (
                f"`model.model_cls: {model}` must have a class method `from_config`, as "
                "`MMFusionSeparate` has."
            )


def _incompatible_parts(config: RunConfig, *, plans_batches: bool) -> Iterator[str]:
    """Yields a sentence for parts of an item that do not work with each other or with the task."""
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
    meta = parts["meta_processor"]
    planned = ShardedHow2VideoRetriMetaProcessor
    if plans_batches and not config.is_test and not issubclass(meta, planned):
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


def check_parts(task: Task) -> None:
    """Checks the parts of a training run before any process starts.

    The list, the shards and the captions of every split are opened, and an item is made if that is
    quick. The settings of the model and the loss are checked. The model is not built.

    Raises:
        UserError: a part finds a mistake.
    """
    logging.disable(logging.WARNING)  # the training processes log the same
    try:
        for split in (Split.TRAIN, Split.VALID):
            dataset = task.build_dataset(split)
            if dataset and not dataset.aligner.takes_batches:
                make_item(task.config, dataset, 0)
        task.build_loss()
        check_model(task.config)
    finally:
        logging.disable(logging.NOTSET)


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
    if config.model.compile:
        device = training_device(config)
        if device.type == "cpu":
            check_compiler(device)


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


def check_start(config: RunConfig, *, is_node_0: bool = True) -> None:
    """Raises CheckpointError unless fairseq can use the checkpoint that the run continues or starts
    from. For a bad `checkpoint_last.pt`, the error names the newest intact checkpoint.

    Args:
        is_node_0: this is the first node of the job. It repairs a damaged checkpoint. The other
            nodes only check that the file exists, because a repair may be in progress.
    """
    last = last_checkpoint(config.save_dir)
    path = last or config.option("checkpoint", "restore_file")
    if path is None or path == LAST:
        # The name alone means the file in `save_dir`, which does not exist.
        return
    if not os.path.exists(path):
        raise CheckpointError(
            f"{path}: no such file; `fairseq.checkpoint.restore_file` of {config.path} names it as "
            "the weights to start from. Train it first (its folder is another run's `save_dir`: "
            "VideoCLIP before Norton), or download the released one as DATASET.md explains. The "
            f"demo makes its own:\n  {DEMO_COMMANDS}"
        )
    if not is_node_0:
        return
    # The option is ignored when a run continues.
    resets = config.option("checkpoint", "reset_optimizer")
    if last is not None:
        repair_last(Path(last))
    try:
        check_training_checkpoint(path, optimizer=bool(last or not resets))
    except CheckpointError as err:
        if last is None:
            raise
        raise CheckpointError(f"{err}\n{_way_to_continue(last)}") from err
    if last is None:
        _check_features(config, Path(path))


def _check_features(config: RunConfig, start: Path) -> None:
    """Compares the features of a training run with those that its first checkpoint was trained on.

    If only LayerNorm parameters are trained, the model cannot learn another rate, which is an
    error, and hardly another encoder, which is a warning. If all parameters are trained, another
    rate is a warning.
    """
    other_rate = find_other_rate(start, config.dataset)
    if not config.model.layernorm_only:
        if other_rate:
            logger.warning("%s. The model must learn the new rate.", other_rate)
        return
    if other_rate:
        raise CheckpointError(
            f"{other_rate}, and `model.layernorm_only` does not let the model learn another rate. "
            "Set it to false, or correct `dataset.vfeat_dir` and `dataset.feature_fps`."
        )
    other = find_other_features(start, config.dataset)
    if other is not None:
        logger.warning("%s: %s. %s", start, other, OTHER_FEATURES)


def _way_to_continue(last: str) -> str:
    """Returns how to continue a run whose last checkpoint cannot be used, as sentences."""
    newest = newest_intact(Path(last).parent, ignored=Path(last))
    if newest is None:
        return (
            "No other checkpoint of this run is intact. To start the run from its beginning, "
            f"remove {last} and run the same command again."
        )
    command = shlex.join(["cp", str(newest), last])
    return (
        f"The newest intact checkpoint of this run is {newest}. To continue from it, run "
        f"`{command}` and the same command again."
    )
