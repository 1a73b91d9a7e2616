"""LayerNorm-only training: the trainable parameters and the number of their values."""

import pytest
import torch
from torch import nn
from transformers import BertConfig

from mmpt.errors import ConfigError
from mmpt.models import MMFusionSeparate
from mmpt.tasks.task import freeze_all_but_layernorm


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


def test_the_name_decides_not_the_class():
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
