"""The composition root: builds data sets, model and loss from a run's config. Only this package
looks classes up by name.

Before anything is built, all classes are checked: that they exist, and that they work together. The
launcher also makes an item of each small data set and checks the model's sizes (`check_parts`), so
that a mistake is reported before the training processes start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import nn

from mmpt.batch import Split
from mmpt.config import DatasetConfig, RunConfig
from mmpt.datasets import MMDataset
from mmpt.errors import ConfigError, UserError
from mmpt.evaluators import METRICS, PREDICTORS
from mmpt.losses import LOSSES, Loss
from mmpt.models import MODELS, MMFusionSeparate
from mmpt.models.compilation import check_compiler, compile_layers
from mmpt.processors import ShardedHow2VideoRetriMetaProcessor
from mmpt.processors.base import PARTS
from mmpt.registry import Registry
from mmpt.retrieval import RETRIEVERS, VECTOR_POOLS
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


class Task:
    """A builder of the parts of a run.

    Args:
        config: the whole run.
        seed: base of all random draws of the data sets.
    """

    Config: ClassVar[type[DatasetConfig]] = DatasetConfig
    """The keys under `dataset` that the task itself reads."""
    plans_batches: ClassVar[bool] = False
    """True if the training batches are planned by retrieval."""

    def __init__(self, config: RunConfig, *, seed: int = 1):
        self.config = config
        self.seed = seed

    @staticmethod
    def from_config(config: RunConfig, *, seed: int = 1) -> Task:
        """Returns the task that the YAML names as `task`. The default is `Task`.

        Raises:
            ConfigError: as `check_classes`.
        """
        check_classes(config)
        task_cls = TASKS.get(config.task or "Task", "task")
        return task_cls(config, seed=seed)

    def build_dataset(self, split: Split) -> MMDataset | None:
        """Returns the data set of `split`, or None if the config names no source for it."""
        dataset = self.config.dataset
        wanted = {
            Split.TRAIN: dataset.train_path is not None,
            Split.VALID: dataset.val_path is not None,
            Split.TEST: self.config.is_test,
        }
        if not wanted[split]:
            return None
        classes = part_classes(self.config)
        parts = [part_cls(dataset, split) for part_cls in classes.values()]
        return MMDataset(*parts, seed=self.seed)

    def build_model(self, *, pretrained: bool) -> nn.Module:
        """Returns the model. If the config says so, all but its LayerNorm parameters are frozen.

        Args:
            pretrained: start from BERT's weights. They are not needed if a checkpoint is loaded.
        """
        config = self.config.model
        model_cls = MODELS.get(config.model_cls or "", "model.model_cls")
        settings: dict[str, Any] = {"pretrained": pretrained}
        if issubclass(model_cls, MMFusionSeparate):  # others compute whole batches
            settings["clips_per_forward"] = self.config.clips_per_forward
        model = model_cls.from_config(self.config.dataset, config, **settings)
        if config.layernorm_only:
            names = freeze_all_but_layernorm(model)
            logger.info("training LayerNorm only: %d tensors", len(names))
        if config.compile:
            device = training_device(self.config)
            compile_layers(model, device)
        return model

    def build_loss(self) -> Loss:
        """Returns the loss.

        Raises:
            ConfigError: a mistake in the `loss` section, or a model that does not return what the
                loss reads.
        """
        assert self.config.loss is not None, "checked by the config"
        name = self.config.loss.loss_cls or ""
        loss_cls = LOSSES.get(name, "loss.loss_cls")
        loss = loss_cls(self.config.loss)
        check_loss(self.config, loss)
        return loss


TASKS: Registry[Task] = Registry("task", Task, "mmpt.tasks")
TASKS.register(Task)


def freeze_all_but_layernorm(model: nn.Module) -> list[str]:
    """Freezes every parameter whose module is not called exactly `LayerNorm`.

    The name decides, not the class. It is the second-to-last part of the parameter's dotted name.
    For Norton, 78 tensors with 59,904 numbers stay trainable, including the norm of the video
    token MLP. Frozen layers keep their dropout.

    Returns:
        The names of the trainable parameters, in the model's order.
    Raises:
        ConfigError: no parameter would be trainable.
    """
    trainable = []
    for name, parameter in model.named_parameters():
        if name.split(".")[-2:-1] != ["LayerNorm"]:
            parameter.requires_grad_(False)
        elif parameter.requires_grad:
            trainable.append(name)
    if not trainable:
        problem = (
            f"the model {type(model).__name__} must have modules named `LayerNorm`, but has none; "
            "leave the key out."
        )
        raise ConfigError("model.layernorm_only", [problem])
    return trainable


def check_parts(config: RunConfig) -> None:
    """Checks the parts of a training before any process starts.

    Every class is looked up. The list, the shards and the captions of every split are opened, and
    an item is made if that is quick. The settings of the model and the loss are checked. The model
    is not built.

    Raises:
        UserError: a part finds a mistake.
    """
    logging.disable(logging.WARNING)  # the training processes log the same
    try:
        task = Task.from_config(config)
        for split in (Split.TRAIN, Split.VALID):
            dataset = task.build_dataset(split)
            if dataset and not dataset.aligner.takes_batches:
                make_item(config, dataset, 0)
        task.build_loss()
        check_model(config)
    finally:
        logging.disable(logging.NOTSET)


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


def check_classes(config: RunConfig) -> None:
    """Checks every class that a YAML names: that it exists, and that it works with the others.

    Raises:
        ConfigError: lists every unknown name with the nearest known one, or every misfit.
    """
    # Classes can only be compared once all of them are known.
    problems = list(_unknown_names(config))
    if not problems:
        problems = list(_misfits(config))
    if problems:
        raise ConfigError(str(config.path), problems)


def _unknown_names(config: RunConfig) -> Iterator[str]:
    """Yields a sentence for every class that does not exist."""
    yield from _problems_of(TASKS, config.task, "task")
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


def _misfits(config: RunConfig) -> Iterator[str]:
    """Yields a sentence for classes that exist but do not work together."""
    yield from _part_misfits(config)
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


def _part_misfits(config: RunConfig) -> Iterator[str]:
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
    task_cls = TASKS.get(config.task or "Task", "task")
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
