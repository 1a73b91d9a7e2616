"""Dtypes and initial weights of the video token MLP.

Its outputs are compared with the released code in tests/parity/test_models.py.
"""

import torch

from mmpt.models.bert import VideoTokenMLP


def test_half_features_are_cast_to_the_weights():
    features = torch.ones(1, 2, 6)
    mlp = VideoTokenMLP(6, 4)
    assert mlp(features.half()).dtype == torch.float32
    assert mlp.bfloat16()(features).dtype == torch.bfloat16


def test_initial_weights():
    torch.manual_seed(0)
    mlp = VideoTokenMLP(512, 256)
    for linear in (mlp.linear1, mlp.linear2):
        assert abs(linear.weight.std().item() - 0.02) < 2e-4
        assert not linear.bias.any()
    assert (mlp.LayerNorm.weight == 1).all()
    assert mlp.LayerNorm.eps == 1e-5
