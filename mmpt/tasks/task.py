"""The composition root: turns a run's config into data sets, model and loss; the only place that
looks classes up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.datasets import MMDataset
from mmpt.errors import ConfigError
from mmpt.evaluators import METRICS, PREDICTORS
from mmpt.losses import LOSSES, Loss
from mmpt.models import MODELS, MMFusionSeparate
from mmpt.models.compilation import compile_layers
from mmpt.models.freezing import freeze_all_but_layernorm
from mmpt.processors import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.registry import Registry
from mmpt.retrieval import RETRIEVERS, VECTOR_POOLS
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


class Task:
    """Builds the parts of a run and reshapes its batches.

    Args:
        config: the whole run.
        seed: base of all random draws of the data sets.
    """

    def __init__(self, config: RunConfig, *, seed: int = 1):
        self.config = config
        self.seed = seed

    @staticmethod
    def from_config(config: RunConfig, *, seed: int = 1) -> Task:
        """Build the task that the YAML's `task:` names (`Task` when it names none), all class names
        checked.

        Raises:
            ConfigError: listing each unknown name with the nearest known one.
        """
        named = config.task is None or config.task in TASKS or "." in config.task
        task = (
            TASKS.get(config.task or "Task", "task")(config, seed=seed)
            if named
            else Task(config, seed=seed)
        )
        task.check_classes()
        return task

    def check_classes(self) -> None:
        """Look every class name of the config up, so that all unknown ones are reported together.

        Raises:
            ConfigError: listing each unknown name with the nearest known one.
        """
        dataset, model, loss = self.config.dataset, self.config.model, self.config.loss
        lookups: list[tuple[Registry[Any], str | None, str]] = [
            (TASKS, self.config.task, "task"),
            (META_PROCESSORS, dataset.meta_processor, "dataset.meta_processor"),
            (VIDEO_PROCESSORS, dataset.video_processor, "dataset.video_processor"),
            (TEXT_PROCESSORS, dataset.text_processor, "dataset.text_processor"),
            (ALIGNERS, dataset.aligner, "dataset.aligner"),
            (MODELS, model.model_cls, "model.model_cls"),
            (LOSSES, loss.loss_cls if loss else None, "loss.loss_cls"),
            (VECTOR_POOLS, self.config.retrieval.vectorpool_cls, "vectorpool_cls"),
            (RETRIEVERS, self.config.retrieval.retriever_cls, "retriever_cls"),
            (PREDICTORS, self.config.predictor, "predictor"),
            *((METRICS, name, "metric") for name in self.config.metric),
        ]
        problems = []
        for registry, name, key in lookups:
            if name is None:
                continue
            try:
                registry.get(name, key)
            except ConfigError as err:
                problems += [f"`{key}`: {problem}" for problem in err.problems]
        problems += [] if problems else self.find_misfits()
        if problems:
            raise ConfigError(str(self.config.path), problems)

    def find_misfits(self) -> list[str]:
        """Return the classes that exist but cannot work together, one sentence each."""
        return [
            *self._mixed_parts(),
            *self._uneven_batches(),
            *self._foreign_metrics(),
            *self._unbuildable_model(),
        ]

    def _mixed_parts(self) -> list[str]:
        dataset, parts = self.config.dataset, self._part_classes()
        batched = [name for name, part in parts.items() if part.takes_batches]
        if not batched or len(batched) == len(parts):
            return []
        names = ", ".join(f"`{name}: {getattr(dataset, name)}`" for name in batched)
        return [
            (
                f"under `dataset`, {names} work on whole batches of videos, but the other parts on "
                "single videos."
            )
        ]

    def _uneven_batches(self) -> list[str]:
        """A batch of several items that differ in size."""
        aligner, size = self._part_classes()["aligner"], self.config.batch_size
        if size == 1 or not aligner.fills_batch:
            return []
        return [
            f"`fairseq.dataset.batch_size` must be 1 with `dataset.aligner: {aligner.__name__}`, "
            f"whose items are whole videos of any length, but is {size}."
        ]

    def _foreign_metrics(self) -> list[str]:
        """Metrics of another kind of test than the predictor's."""
        if self.config.predictor is None:
            return []
        predictor = PREDICTORS.get(self.config.predictor, "predictor")
        metrics = {name: METRICS.get(name, "metric") for name in self.config.metric}
        return [
            f"`metric: {name}` takes {metric.takes.__name__}, but `predictor: "
            f"{self.config.predictor}` makes {predictor.makes.__name__}."
            for name, metric in metrics.items()
            if not issubclass(predictor.makes, metric.takes)
        ]

    def _unbuildable_model(self) -> list[str]:
        """A torch module that cannot be made from a config."""
        name = self.config.model.model_cls
        if name is None or hasattr(MODELS.get(name, "model.model_cls"), "from_config"):
            return []
        return [
            (
                f"`model.model_cls: {name}` must have a class method `from_config`, as "
                "`MMFusionSeparate` has."
            )
        ]

    def build_dataset(self, split: Split) -> MMDataset | None:
        """Build the data set of `split`, or None when the config names no source for it."""
        dataset = self.config.dataset
        test_path = dataset.test_path or dataset.anno_path
        path = {
            Split.TRAIN: dataset.train_path,
            Split.VALID: dataset.val_path,
            Split.TEST: test_path,
        }[split]
        if path is None:
            return None
        meta, video, text, aligner = (
            part(dataset, split) for part in self._part_classes().values()
        )
        return MMDataset(meta, video, text, aligner, seed=self.seed)

    def _part_classes(self) -> dict[str, Any]:
        """The classes of the four parts of an item, by their keys under `dataset`."""
        registries: dict[str, Registry[Any]] = {
            "meta_processor": META_PROCESSORS,
            "video_processor": VIDEO_PROCESSORS,
            "text_processor": TEXT_PROCESSORS,
            "aligner": ALIGNERS,
        }
        return {
            key: registry.get(getattr(self.config.dataset, key) or "", f"dataset.{key}")
            for key, registry in registries.items()
        }

    def build_model(self, *, pretrained: bool) -> nn.Module:
        """Build the model, frozen but for LayerNorm if the config says so.

        Args:
            pretrained: start from BERT's weights; not needed where a checkpoint follows.
        """
        config = self.config.model
        model_cls = MODELS.get(config.model_cls or "", "model.model_cls")
        model = model_cls.from_config(self.config.dataset, config, pretrained=pretrained)
        if isinstance(model, MMFusionSeparate):  # others compute whole batches
            model.set_chunks(config.checkpoint_activations, self.config.clips_per_forward)
        if config.layernorm_only:
            names = freeze_all_but_layernorm(model)
            logger.info("training LayerNorm only: %d tensors", len(names))
        if config.compile:
            on_gpu = torch.cuda.is_available() and not self.config.option("common", "cpu", False)
            compile_layers(model, torch.device("cuda" if on_gpu else "cpu"))
        return model

    def build_loss(self) -> Loss:
        """Build the loss.

        Raises:
            ConfigError: the config has no `loss` section, a mistake in it, or a model that does not
                give what it needs.
        """
        if self.config.loss is None or self.config.loss.loss_cls is None:
            raise ConfigError(
                str(self.config.path), ["`loss.loss_cls` is required for training, but is missing."]
            )
        loss_cls = LOSSES.get(self.config.loss.loss_cls, "loss.loss_cls")
        loss = loss_cls(self.config.loss, clip_per_video=self.config.dataset.clip_per_video)
        model_cls = MODELS.get(self.config.model.model_cls or "", "model.model_cls")
        gives = getattr(model_cls, "gives", loss.needs)  # a model of the user's own need not say
        if missing := [name for name in loss.needs if name not in gives]:
            problem = (
                f"`loss.loss_cls: {self.config.loss.loss_cls}` needs {', '.join(missing)}, but "
                f"`model.model_cls: {self.config.model.model_cls}` gives {', '.join(gives)}."
            )
            raise ConfigError(str(self.config.path), [problem])
        return loss

    def flatten(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Merge the axes of a batch that count items, videos and clips into one, if its aligner
        draws clips.

        Clip c of video v becomes row v*C + c. Tensors without these axes are left alone, and so are
        whole batches of the downstream aligners, whose models take them as they were collated.
        """
        clip_axes = self._part_classes()["aligner"].clip_axes
        return merge_leading(batch, 1 + clip_axes) if clip_axes else batch


TASKS: Registry[Task] = Registry("task", Task, "mmpt.tasks")
TASKS.register(Task)


def merge_leading(batch: dict[str, Any], num_axes: int) -> dict[str, Any]:
    """Merge the first `num_axes` axes of every tensor whose sizes there are those of `caps`."""
    sizes = batch["caps"].shape[:num_axes]
    return {
        key: value.flatten(0, num_axes - 1)
        if isinstance(value, torch.Tensor)
        and value.dim() >= num_axes
        and value.shape[:num_axes] == sizes
        else value
        for key, value in batch.items()
    }
