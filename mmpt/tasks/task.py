"""The composition root: builds data sets, model, loss and index from a run's config. Only this
package looks classes up by name. Before anything is built, all classes are checked
(`mmpt.tasks.checks`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from mmpt.batch import Split
from mmpt.config import DatasetConfig, RetrievalConfig, RunConfig
from mmpt.datasets import MMDataset
from mmpt.errors import ConfigError
from mmpt.losses import LOSSES, Loss
from mmpt.models import MODELS, MMFusionSeparate
from mmpt.models.compilation import compile_layers, training_device
from mmpt.registry import Registry
from mmpt.retrieval import RETRIEVERS, VectorRetriever
from mmpt.tasks.checks import check_classes, check_loss, part_classes
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
INDEX_KEYS = (
    "num_cands",
    "centroids",
    "examples_per_cent_to_train",
    "db_type",
    "nprobe",
    "recall",
    "retriever_cls",
)
"""Keys of the retrieval on which a plan depends, in addition to the vectors."""


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
        check_classes(config, TASKS)
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

    def build_retriever(
        self, hidden_size: int, seed: int, device: torch.device
    ) -> VectorRetriever:
        """Returns an empty index for vectors of `hidden_size` numbers."""
        config = self.config.retrieval
        name = config.retriever_cls or "VectorRetriever"
        retriever_cls = RETRIEVERS.get(name, "retriever_cls")
        return retriever_cls(
            hidden_size,
            config.centroids,
            db_type=config.db_type,
            examples_per_cent_to_train=config.examples_per_cent_to_train,
            nprobe=config.nprobe,
            seed=seed,
            recall=config.recall,
            device=device,
        )


TASKS: Registry[Task] = Registry("task", Task, "mmpt.tasks")
TASKS.register(Task)


def index_settings(config: RetrievalConfig) -> dict[str, Any]:
    """Returns the settings on which a plan depends, in addition to the vectors."""
    return {key: getattr(config, key) for key in INDEX_KEYS}


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
