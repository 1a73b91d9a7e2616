"""Builds the parts that a config names, from classes of the project and of the user, and freezes
parameters.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import BertConfig

from mmpt.batch import Split
from mmpt.config import DatasetConfig, ModelConfig
from mmpt.errors import ConfigError
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.tasks import Task, VideoRetriTask
from mmpt.tasks.task import freeze_all_but_layernorm
from tests.support.configs import CONFIG, DATASET


class OwnTask(Task):
    """A user-defined task."""


class OwnLoss(MMContraLoss):
    """A user's own."""


class OwnModel(nn.Module):
    """A user-defined model that uses only torch."""

    @classmethod
    def from_config(
        cls, dataset: DatasetConfig, model: ModelConfig, *, pretrained: bool
    ) -> OwnModel:
        return cls()


def test_the_named_task_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(Task.from_config(CONFIG)) is Task
    planned = DATASET.replace(
        meta_processor="ShardedHow2VideoRetriMetaProcessor",
        video_processor="ShardedVideoRetriVideoProcessor",
        text_processor="ShardedVideoRetriTextProcessor",
        aligner="VideoRetriOverlappedAligner",
    )
    task = Task.from_config(
        CONFIG.replace(task="VideoRetriTask", dataset=planned), seed=5
    )
    assert isinstance(task, VideoRetriTask)
    assert task.seed == 5
    assert (
        type(Task.from_config(CONFIG.replace(task=f"{__name__}.OwnTask"))).__name__
        == "OwnTask"
    )


def test_a_model_may_be_any_torch_module_that_is_made_from_a_config() -> None:
    task = Task.from_config(
        CONFIG.replace(model=ModelConfig(model_cls=f"{__name__}.OwnModel"))
    )
    assert type(task.build_model(pretrained=False)).__name__ == "OwnModel"


def test_a_user_defined_loss_is_built_from_the_section() -> None:
    config = CONFIG.replace(loss=OwnLoss.Config(loss_cls=f"{__name__}.OwnLoss"))
    loss = Task.from_config(config).build_loss()
    assert type(loss).__name__ == "OwnLoss"
    assert loss.config is config.loss


def test_a_split_without_a_list_has_no_data_set() -> None:
    task = Task.from_config(CONFIG)
    assert [task.build_dataset(split) for split in Split] == [None, None, None]


def test_norton_trains_78_tensors_of_59904_numbers():
    with torch.device("meta"):
        model = MMFusionSeparate(
            BertConfig(), num_hidden_video_layers=6, max_video_len=16
        )
    names = freeze_all_but_layernorm(model)
    parameters = dict(model.named_parameters())
    assert len(names) == 78
    assert sum(parameters[name].numel() for name in names) == 59_904
    assert names == [name for name, p in parameters.items() if p.requires_grad]


def test_layers_are_selected_by_name_not_by_class():
    model = nn.ModuleDict(
        {
            "norm": nn.LayerNorm(2),
            "LayerNorm": nn.Linear(2, 2),
            "LayerNorm2": nn.LayerNorm(2),
        }
    )
    assert freeze_all_but_layernorm(model) == ["LayerNorm.weight", "LayerNorm.bias"]


def test_a_model_without_layernorm_is_a_user_error():
    with pytest.raises(ConfigError, match=r"layernorm_only.*\n.*named `LayerNorm`"):
        freeze_all_but_layernorm(nn.Linear(2, 2))
