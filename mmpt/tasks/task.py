"""The composition root: builds data sets, model and loss from a run's config. Only this package
looks classes up by name.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from mmpt.batch import Split
from mmpt.config import DatasetConfig, RunConfig
from mmpt.datasets import MMDataset
from mmpt.losses import LOSSES, Loss
from mmpt.models import MODELS, MMFusionSeparate
from mmpt.models.compilation import compile_layers
from mmpt.models.freezing import freeze_all_but_layernorm
from mmpt.registry import Registry
from mmpt.tasks import checks
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
            ConfigError: as `checks.check_classes`.
        """
        checks.check_classes(config, TASKS)
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
        classes = checks.part_classes(self.config)
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
            device = checks.training_device(self.config)
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
        checks.check_loss(self.config, loss)
        return loss


TASKS: Registry[Task] = Registry("task", Task, "mmpt.tasks")
TASKS.register(Task)
