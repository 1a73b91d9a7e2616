"""The losses give the numbers recorded from the original, with their gradients; measured errors
beside the bounds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.config.schema import LossConfig, SequenceContrastConfig
from mmpt.losses import MMContraLoss, SequenceContrastLoss, T2VContraLoss, V2TContraLoss
from mmpt.losses.base import LOG_SCALE
from mmpt.losses.nce import dot_products
from mmpt.losses.sequence import States, fused_similarity, paragraph_logits
from mmpt.losses.similarity import bucket_value, sequence_blocks
from mmpt.losses.sinkhorn import transport

GOLDEN = Path(__file__).parent / "golden"
STATES = ("pooled_video", "pooled_text", "video_outputs", "text_outputs")
MASKS = ("video_mask_outputs", "text_mask_outputs")
CASES = ("a", "b", "c")


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def norton(
    case: str, dtype: torch.dtype
) -> tuple[dict[str, np.ndarray], LossConfig, int, dict[str, torch.Tensor]]:
    golden = load(f"loss_norton_{case}.npz")
    case_config = json.loads((GOLDEN / "loss_norton_config.json").read_text())[case]
    sequence = SequenceContrastConfig(
        sequence_contrast_weight=case_config["weight"],
        threshold=case_config["threshold"],
        prompt_ratio=case_config["prompt_ratio"],
        scale=case_config["scale"],
    )
    config = LossConfig(
        sequence_contrast=sequence,
        sinkhorn_iterations=case_config["sinkhorn"],
        beta=case_config["beta"],
        alpha_lse=case_config["alpha"],
        fusion_weight=case_config["fusion"],
    )
    batch = {key: torch.tensor(golden[key], dtype=dtype, requires_grad=True) for key in STATES}
    batch |= {key: torch.tensor(golden[key]) for key in MASKS}
    return golden, config, case_config["clips"], batch


@pytest.mark.parametrize("case", CASES)
def test_norton_terms_and_gradients_in_float64(case: str) -> None:
    golden, config, clips, batch = norton(case, torch.float64)
    output = MMContraLoss(config, clip_per_video=clips)(**batch, unread="ignored")
    weight = config.sequence_contrast.sequence_contrast_weight
    output.total.backward()
    # measured: at most 1.4e-8, 1.4e-8 and 1.3e-8 (the original keeps tau and 1 - beta in float32)
    np.testing.assert_allclose(output.total.item(), golden["total_f64"], rtol=1e-7)
    np.testing.assert_allclose(
        output.terms["clip_caption"].item(), golden["clip_caption_f64"], rtol=1e-7
    )
    np.testing.assert_allclose(
        output.terms["video_paragraph"].item() / weight, golden["sequence_f64"], rtol=1e-7
    )
    for key in STATES:
        # measured: at most 4.3e-9 where the gradients reach 0.26
        np.testing.assert_allclose(
            batch[key].grad.numpy(), golden[f"grad_{key}"], rtol=1e-5, atol=1e-8, err_msg=key
        )


@pytest.mark.parametrize("case", CASES)
def test_sequence_term_alone(case: str) -> None:
    golden, config, clips, batch = norton(case, torch.float64)
    output = SequenceContrastLoss(config, clip_per_video=clips)(**batch)
    assert set(output.terms) == {"video_paragraph"}
    output.total.backward()
    # Measured: 1.3e-8.
    np.testing.assert_allclose(output.total.item(), golden["sequence_f64"], rtol=1e-7)
    for key in STATES[:2]:
        # 5.9e-9.
        np.testing.assert_allclose(
            batch[key].grad.numpy(), golden[f"seq_grad_{key}"], rtol=1e-5, atol=1e-8
        )


@pytest.mark.parametrize("case", CASES)
def test_intermediate_values(case: str) -> None:
    golden, config, _, batch = norton(case, torch.float64)
    length = config.sequence_contrast.threshold
    plan = transport(
        dot_products(batch["pooled_video"], batch["pooled_text"]), config.sinkhorn_iterations
    )
    # Stored as float32.
    np.testing.assert_allclose(plan.numpy(), golden["clip_transport_Q"], rtol=1e-6, atol=1e-10)
    fused = fused_similarity(config, States.of(batch)).detach()
    np.testing.assert_allclose(
        bucket_value(fused, config.sequence_contrast.prompt_ratio), golden["bucket_value"]
    )
    blocks = sequence_blocks(fused, length).reshape(-1, length, length)
    # 3e-8, stored as float32.
    np.testing.assert_allclose(blocks, golden["fused_clip_logit_blocks"], rtol=1e-6)
    logits = paragraph_logits(config, torch.tensor(LOG_SCALE, dtype=torch.float64).exp(), fused)
    np.testing.assert_allclose(logits, golden["sequence_logits"], rtol=1e-7)  # measured: 9.5e-9


@pytest.mark.parametrize("case", CASES)
def test_norton_terms_in_float32(case: str) -> None:
    golden, config, clips, batch = norton(case, torch.float32)
    output = MMContraLoss(config, clip_per_video=clips)(**batch)
    # Measured: 5e-8.
    np.testing.assert_allclose(output.total.item(), golden["total_f64"], rtol=1e-5)
    # Measured: 1.1e-7.
    np.testing.assert_allclose(output.total.item(), golden["total_f32"], rtol=1e-5)


def plain_case(loss: Any, golden: dict[str, np.ndarray]) -> tuple[float, np.ndarray, np.ndarray]:
    video, text = (
        torch.tensor(golden[key], dtype=torch.float64, requires_grad=True) for key in STATES[:2]
    )
    total = loss(pooled_video=video, pooled_text=text).total
    total.backward()
    return total.item(), video.grad.numpy(), text.grad.numpy()


def test_plain_contrastive_loss_of_videoclip() -> None:
    golden = load("loss_videoclip.npz")
    value, grad_video, grad_text = plain_case(MMContraLoss(LossConfig()), golden)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-12)  # measured: 0
    np.testing.assert_allclose(grad_video, golden["grad_pooled_video"], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(grad_text, golden["grad_pooled_text"], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("cls", "name"), [(T2VContraLoss, "t2v"), (V2TContraLoss, "v2t")])
def test_one_direction(cls: Any, name: str) -> None:
    golden = load("loss_t2v_v2t.npz")
    value, grad_video, grad_text = plain_case(cls(LossConfig()), golden)
    np.testing.assert_allclose(value, golden[name], rtol=1e-12)  # measured: 0
    np.testing.assert_allclose(grad_video, golden[f"{name}_grad_video"], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(grad_text, golden[f"{name}_grad_text"], rtol=1e-9, atol=1e-14)
