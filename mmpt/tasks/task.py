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


# The parts of an item by their keys under `dataset`, in the order in which `MMDataset` takes them.
PARTS: dict[str, Registry[Any]] = {
    "meta_processor": META_PROCESSORS,
    "video_processor": VIDEO_PROCESSORS,
    "text_processor": TEXT_PROCESSORS,
    "aligner": ALIGNERS,
}


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
        dataset, retrieval, loss = config.dataset, config.retrieval, config.loss
        lookups: list[tuple[Registry[Any], str | None, str]] = [
            (TASKS, config.task, "task"),
            *(
                (registry, getattr(dataset, key), f"dataset.{key}")
                for key, registry in PARTS.items()
            ),
            (MODELS, config.model.model_cls, "model.model_cls"),
            (LOSSES, loss.loss_cls if loss else None, "loss.loss_cls"),
            (VECTOR_POOLS, retrieval.vectorpool_cls, "vectorpool_cls"),
            (RETRIEVERS, retrieval.retriever_cls, "retriever_cls"),
            (PREDICTORS, config.predictor, "predictor"),
            *((METRICS, name, "metric") for name in config.metric),
        ]
        problems = []
        for registry, name, key in lookups:
            try:
                if name is not None:
                    registry.get(name, key)
            except ConfigError as err:
                problems += [f"`{key}`: {problem}" for problem in err.problems]
        if not problems:
            task = TASKS.get(config.task or "Task", "task")(config, seed=seed)
            problems = task.find_misfits()
        if problems:
            raise ConfigError(str(config.path), problems)
        return task

    def find_misfits(self) -> list[str]:
        """Return the classes that exist but cannot work together, one sentence each."""
        problems, config, parts = [], self.config, self._part_classes()
        aligner, model = parts["aligner"], config.model.model_cls
        batched = [key for key, part in parts.items() if part.takes_batches]
        if 0 < len(batched) < len(parts):
            names = ", ".join(f"`{key}: {getattr(config.dataset, key)}`" for key in batched)
            problems.append(
                f"under `dataset`, {names} work on whole batches of videos, but the other parts on "
                "single videos."
            )
        if config.batch_size != 1 and aligner.fills_batch:
            problems.append(
                f"`fairseq.dataset.batch_size` must be 1 with `dataset.aligner: "
                f"{aligner.__name__}`, whose items are whole videos of any length, but is "
                f"{config.batch_size}."
            )
        if config.predictor is not None:
            makes = PREDICTORS.get(config.predictor, "predictor").makes
            for name in config.metric:
                takes = METRICS.get(name, "metric").takes
                if not issubclass(makes, takes):
                    problems.append(
                        f"`metric: {name}` takes {takes.__name__}, but `predictor: "
                        f"{config.predictor}` makes {makes.__name__}."
                    )
        if model and not hasattr(MODELS.get(model, "model.model_cls"), "from_config"):
            problems.append(
                f"`model.model_cls: {model}` must have a class method `from_config`, as "
                "`MMFusionSeparate` has."
            )
        return problems

    def build_dataset(self, split: Split) -> MMDataset | None:
        """Build the data set of `split`, or None when the config names no source for it."""
        dataset = self.config.dataset
        paths = {
            Split.TRAIN: dataset.train_path,
            Split.VALID: dataset.val_path,
            Split.TEST: dataset.test_path or dataset.anno_path,
        }
        if paths[split] is None:
            return None
        parts = (part(dataset, split) for part in self._part_classes().values())
        return MMDataset(*parts, seed=self.seed)

    def _part_classes(self) -> dict[str, Any]:
        """The classes of the four parts of an item, by their keys under `dataset`."""
        return {
            key: registry.get(getattr(self.config.dataset, key) or "", f"dataset.{key}")
            for key, registry in PARTS.items()
        }

    def build_model(self, *, pretrained: bool) -> nn.Module:
        """Build the model, frozen but for LayerNorm if the config says so.

        Args:
            pretrained: start from BERT's weights; not needed where a checkpoint follows.
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
            on_gpu = torch.cuda.is_available() and not self.config.option("common", "cpu", False)
            compile_layers(model, torch.device("cuda" if on_gpu else "cpu"))
        return model

    def build_loss(self) -> Loss:
        """Build the loss.

        Raises:
            ConfigError: a mistake in the `loss` section, or a model that does not give what the
                loss needs.
        """
        assert self.config.loss is not None, "checked by the config"
        name = self.config.loss.loss_cls or ""
        loss = LOSSES.get(name, "loss.loss_cls")(self.config.loss)
        model_cls = MODELS.get(self.config.model.model_cls or "", "model.model_cls")
        # A user's own model need not list its outputs.
        outputs = getattr(model_cls, "outputs", loss.inputs)
        if missing := [name for name in loss.inputs if name not in outputs]:
            problem = (
                f"`loss.loss_cls: {name}` needs {', '.join(missing)}, but "
                f"`model.model_cls: {self.config.model.model_cls}` returns {', '.join(outputs)}."
            )
            raise ConfigError(str(self.config.path), [problem])
        return loss


TASKS: Registry[Task] = Registry("task", Task, "mmpt.tasks")
TASKS.register(Task)
