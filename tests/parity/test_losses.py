"""Values and gradients of the losses against numbers recorded from the original.

The measured errors are in comments next to the tolerances.
"""

from typing import Any

import numpy as np
import pytest
import torch

from mmpt.losses import MMContraLoss, SequenceContrastLoss, T2VContraLoss, V2TContraLoss
from mmpt.losses.base import LOG_SCALE
from mmpt.losses.nce import dot_products
from mmpt.losses.sequence import (
    bucket_value,
    fused_similarity,
    paragraph_logits,
    sequence_blocks,
)
from mmpt.losses.sinkhorn import transport
from tests.support.recorded import arrays, record

STATES = ("pooled_video", "pooled_text", "video_outputs", "text_outputs")
MASKS = ("video_mask_outputs", "text_mask_outputs")
SEQUENCE_KEYS = {
    "sequence_contrast_weight": "weight",
    "threshold": "threshold",
    "prompt_ratio": "prompt_ratio",
    "scale": "scale",
}
by_case = pytest.mark.parametrize("case", ["a", "b", "c"])


def norton(
    case: str, dtype: torch.dtype
) -> tuple[dict[str, np.ndarray], MMContraLoss.Config, dict[str, torch.Tensor]]:
    golden = arrays(f"loss_norton_{case}")
    recorded = record("loss_norton_config")[case]
    sequence = {key: recorded[name] for key, name in SEQUENCE_KEYS.items()}
    config = MMContraLoss.Config(
        sequence_contrast=sequence,
        sinkhorn_iterations=recorded["sinkhorn"],
        beta=recorded["beta"],
        alpha_lse=recorded["alpha"],
        fusion_weight=recorded["fusion"],
    )
    batch = {}
    for key in STATES:
        batch[key] = torch.tensor(golden[key], dtype=dtype, requires_grad=True)
    for key in MASKS:
        batch[key] = torch.tensor(golden[key])
    return golden, config, batch


@by_case
def test_norton_terms_and_gradients_in_float64(case: str) -> None:
    golden, config, batch = norton(case, torch.float64)
    output = MMContraLoss(config)(**batch, unread="ignored")
    weight = config.sequence_contrast.sequence_contrast_weight
    output.total.backward()
    # measured: at most 1.4e-8, 1.4e-8 and 1.3e-8 (the original keeps tau and 1 - beta in float32)
    values = {
        "total_f64": output.total,
        "clip_caption_f64": output.terms["clip_caption"],
        "sequence_f64": output.terms["video_paragraph"] / weight,
    }
    for name, value in values.items():
        np.testing.assert_allclose(value.item(), golden[name], rtol=1e-7, err_msg=name)
    for key in STATES:
        # measured: at most 4.3e-9 where the gradients reach 0.26
        gradient = batch[key].grad
        expected = golden[f"grad_{key}"]
        np.testing.assert_allclose(
            gradient, expected, rtol=1e-5, atol=1e-8, err_msg=key
        )


@by_case
def test_the_sequence_term_alone(case: str) -> None:
    golden, config, batch = norton(case, torch.float64)
    output = SequenceContrastLoss(config)(**batch)
    assert set(output.terms) == {"video_paragraph"}
    output.total.backward()
    # Measured: 1.3e-8.
    np.testing.assert_allclose(output.total.item(), golden["sequence_f64"], rtol=1e-7)
    for key in STATES[:2]:
        # Measured: 5.9e-9.
        gradient = batch[key].grad
        expected = golden[f"seq_grad_{key}"]
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)


@by_case
def test_intermediate_values(case: str) -> None:
    golden, config, batch = norton(case, torch.float64)
    dots = dot_products(batch["pooled_video"], batch["pooled_text"])
    plan = transport(dots, config.sinkhorn_iterations)
    # The recorded plan is rounded to float32.
    np.testing.assert_allclose(plan, golden["clip_transport_Q"], rtol=1e-6, atol=1e-10)

    sequence = config.sequence_contrast
    fused = fused_similarity(config, batch).detach()
    bucket = bucket_value(fused, sequence.prompt_ratio)
    np.testing.assert_allclose(bucket, golden["bucket_value"])
    blocks = sequence_blocks(fused, sequence.threshold).flatten(0, 1)
    # Measured: 3e-8. The recorded blocks are rounded to float32.
    np.testing.assert_allclose(blocks, golden["fused_clip_logit_blocks"], rtol=1e-6)
    scale = torch.tensor(LOG_SCALE, dtype=torch.float64).exp()
    logits = paragraph_logits(config, scale, fused)
    # measured: 9.5e-9
    np.testing.assert_allclose(logits, golden["sequence_logits"], rtol=1e-7)


@by_case
def test_norton_terms_in_float32(case: str) -> None:
    golden, config, batch = norton(case, torch.float32)
    output = MMContraLoss(config)(**batch)
    # Measured: 5e-8.
    np.testing.assert_allclose(output.total.item(), golden["total_f64"], rtol=1e-5)
    # Measured: 1.1e-7.
    np.testing.assert_allclose(output.total.item(), golden["total_f32"], rtol=1e-5)


@pytest.mark.parametrize(
    ("cls", "file", "value", "gradient"),
    [
        (MMContraLoss, "loss_videoclip", "loss", "grad_pooled_"),
        (T2VContraLoss, "loss_t2v_v2t", "t2v", "t2v_grad_"),
        (V2TContraLoss, "loss_t2v_v2t", "v2t", "v2t_grad_"),
    ],
)
def test_contrastive_losses_of_videoclip(
    cls: Any, file: str, value: str, gradient: str
) -> None:
    golden = arrays(file)
    video = torch.tensor(
        golden["pooled_video"], dtype=torch.float64, requires_grad=True
    )
    text = torch.tensor(golden["pooled_text"], dtype=torch.float64, requires_grad=True)
    loss = cls(cls.Config())
    total = loss(pooled_video=video, pooled_text=text).total
    total.backward()
    np.testing.assert_allclose(total.item(), golden[value], rtol=1e-12)  # measured: 0
    for name, states in (("video", video), ("text", text)):
        expected = golden[gradient + name]
        np.testing.assert_allclose(states.grad, expected, rtol=1e-9, atol=1e-14)
