"""Towers in half precision on the CPU, packed and padded: a float32 loss, and gradients near those
of float32.
"""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import BertConfig

from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from tests.norton import norton_loss

NORTON = norton_loss(threshold=4, sinkhorn_iterations=10)


def clips() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    num, slots, seconds = 16, 12, 6
    lengths = torch.randint(3, slots + 1, (num, 1), generator=generator)
    return {
        "caps": torch.randint(1, 120, (num, slots), generator=generator),
        "cmasks": torch.arange(slots) < lengths,
        "vfeats": torch.randn(num, seconds, 512, generator=generator),
        "vmasks": torch.arange(seconds)
        < torch.randint(1, seconds + 1, (num, 1), generator=generator),
    }


def loss_and_gradients(
    model: MMFusionSeparate, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    batch = clips()
    output = model(**{**batch, "vfeats": batch["vfeats"].to(dtype)})
    assert output["pooled_video"].dtype == output["text_outputs"].dtype == dtype
    total = MMContraLoss(NORTON, clip_per_video=8)(**batch | output).total
    total.backward()
    gradients = [
        each.grad.flatten().float() for each in model.parameters() if each.grad is not None
    ]
    return total.detach(), torch.cat(gradients)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_and_gradients_stay_near_float32(dtype: torch.dtype, packed: bool) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=120,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    half = (
        MMFusionSeparate(config, num_hidden_video_layers=2, max_video_len=6, packed=packed)
        .train()
        .to(dtype)
    )
    full = copy.deepcopy(half).float()  # with the rounded weights
    loss, gradients = loss_and_gradients(half, dtype)
    wanted_loss, wanted = loss_and_gradients(full, torch.float32)
    eps = torch.finfo(dtype).eps
    assert loss.dtype == torch.float32
    # Measured 0.23 eps (bfloat16), 0.03 (float16).
    assert abs(loss - wanted_loss) < eps * wanted_loss
    assert (
        gradients - wanted
    ).norm() < 8 * eps * wanted.norm()  # measured 5.1 eps (4 %), 2.4 eps (0.2 %)
