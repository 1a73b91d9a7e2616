"""The video token MLP against its definition written with plain tensor functions."""

import math

import torch

from mmpt.modules import VideoTokenMLP


def test_activation_stands_before_a_norm_of_epsilon_1e_5():
    torch.manual_seed(0)
    mlp = VideoTokenMLP(6, 4).double()
    for parameter in mlp.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(3, 2, 6, dtype=torch.float64) * 1e-2
    hidden = x @ mlp.linear1.weight.T + mlp.linear1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    centred = hidden - hidden.mean(-1, keepdim=True)
    hidden = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
    naive = (
        hidden * mlp.LayerNorm.weight + mlp.LayerNorm.bias
    ) @ mlp.linear2.weight.T + mlp.linear2.bias
    torch.testing.assert_close(mlp(x), naive, rtol=0, atol=1e-13)  # measured 1.3e-15


def test_half_features_are_cast_to_the_weights():
    assert VideoTokenMLP(6, 4)(torch.ones(1, 2, 6, dtype=torch.float16)).dtype == torch.float32
    assert VideoTokenMLP(6, 4).bfloat16()(torch.ones(1, 2, 6)).dtype == torch.bfloat16


def test_fresh_weights():
    torch.manual_seed(0)
    mlp = VideoTokenMLP(512, 256)
    for linear in (mlp.linear1, mlp.linear2):
        assert abs(linear.weight.std().item() - 0.02) < 2e-4
        assert not linear.bias.any()
    assert (mlp.LayerNorm.weight == 1).all()
    assert mlp.LayerNorm.eps == 1e-5
