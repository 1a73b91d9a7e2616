"""Tests of towers in half precision on the CPU, with packed and padded batches.

The loss is computed in float32. Loss and gradients are close to the results of float32 towers.
"""

import copy

import pytest
import torch

from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from tests.support.norton import norton_loss
from tests.support.towers import draw, towers


def loss_and_gradients(
    model: MMFusionSeparate, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    batch = draw(16, dtype=dtype)
    output = model(**batch)
    assert output["pooled_video"].dtype == output["text_outputs"].dtype == dtype
    loss = MMContraLoss(norton_loss(threshold=4, sinkhorn_iterations=10))
    total = loss(**batch | output).total
    total.backward()
    gradients = [
        p.grad.flatten().float() for p in model.parameters() if p.grad is not None
    ]
    return total.detach(), torch.cat(gradients)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_and_gradients_stay_near_float32(dtype: torch.dtype, packed: bool) -> None:
    half = towers(packed=packed, hidden_size=64, intermediate_size=128).to(dtype)
    full = copy.deepcopy(half).float()  # with the rounded weights
    loss, gradients = loss_and_gradients(half, dtype)
    wanted_loss, wanted = loss_and_gradients(full, torch.float32)
    eps = torch.finfo(dtype).eps
    assert loss.dtype == torch.float32
    # Measured 0.23 eps (bfloat16), 0.03 (float16).
    assert abs(loss - wanted_loss) < eps * wanted_loss
    # Measured 5.1 eps (4 %), 2.4 eps (0.2 %).
    assert (gradients - wanted).norm() < 8 * eps * wanted.norm()
