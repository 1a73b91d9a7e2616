"""The contrastive losses: a worked example, options, wrong configurations, dtypes and failures.

The worked example is that of the specification. It has ten digits.
"""

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from mmpt.config.schema import LossConfig
from mmpt.errors import ConfigError
from mmpt.losses import (
    MMContraLoss,
    NonFiniteLossError,
    SequenceContrastLoss,
    T2VContraLoss,
    V2TContraLoss,
)
from mmpt.losses.nce import dot_products
from mmpt.losses.sequence import (
    bucket_value,
    fused_similarity,
    paragraph_logits,
    sequence_blocks,
)
from mmpt.losses.sinkhorn import transport
from tests.support.worked_example import (
    NORTON,
    assert_close_to,
    constant_batch,
    formula_batch,
)


def test_values_equal_the_worked_example() -> None:
    batch = formula_batch()
    first_states = batch["pooled_video"][0, :3]
    assert_close_to(first_states, [0.5928335172, 0.7604237753, 0.9047511532])
    text_to_video = T2VContraLoss(LossConfig())
    assert_close_to(text_to_video(**batch).total, 3.5060501746)
    video_to_text = V2TContraLoss(LossConfig())
    assert_close_to(video_to_text(**batch).total, 3.5255120538)
    videoclip = MMContraLoss(MMContraLoss.Config())
    assert_close_to(videoclip(**batch).total, 7.0315622283)

    dots = dot_products(batch["pooled_video"], batch["pooled_text"]).detach()
    assert_close_to(dots[0, :2], [-3.8168946182, 1.7948711560])
    plan = transport(dots, 50)
    assert_close_to(plan[0, :2], [0.000213863193, 0.083765271652])
    assert_close_to(plan[1, 0], 0.002010860978)

    fused = fused_similarity(NORTON, batch).detach()
    assert_close_to(bucket_value(fused, 0.3), 0.3074734631)
    first_row = sequence_blocks(fused, 4)[0, 0, 0]
    assert_close_to(first_row, [0.2065690897, 0.3007566209, 0.5752745026, 0.6677689553])
    scale = torch.tensor(1 / 0.07, dtype=torch.float64)
    logits = paragraph_logits(NORTON, scale, fused)
    assert_close_to(
        logits[0], [29.5377124494, 25.3647800375, 26.7316296138, 24.5905498786]
    )

    output = MMContraLoss(NORTON)(**batch)
    assert_close_to(output.terms["clip_caption"], 6.3964446860)
    assert_close_to(output.terms["video_paragraph"], 0.25956245612)
    assert_close_to(output.total, 6.6560071421)


@pytest.mark.parametrize(
    ("cls", "norm_video", "norm_text"),
    [
        (MMContraLoss, 0.5035340956, 0.4107543564),
        (SequenceContrastLoss, 1.0013541648, 0.8638118401),
    ],
)
def test_gradients_equal_the_worked_example(
    cls: Any, norm_video: float, norm_text: float
) -> None:
    batch = formula_batch()
    cls(NORTON)(**batch).total.backward()
    assert_close_to(batch["video_outputs"].grad.norm(), norm_video)
    assert_close_to(batch["text_outputs"].grad.norm(), norm_text)


def test_the_clip_temperature_of_the_paper_divides_only_the_logits() -> None:
    batch = formula_batch()
    config = NORTON.replace(clip_temperature="paper", sequence_contrast=None)
    output = MMContraLoss(config)(**batch)
    dots = dot_products(batch["pooled_video"], batch["pooled_text"])
    identity = torch.eye(16, dtype=torch.float64)
    targets = 0.3 * transport(dots, 50) + 0.7 * identity
    logits = dots / 0.07
    expected = cross_entropy(logits, targets) + cross_entropy(logits.T, targets.T)
    assert_close_to(output.total, expected, rtol=1e-12)
    assert_close_to(output.metrics["temperature"], 0.07)


@pytest.mark.parametrize(
    "config",
    [
        NORTON.replace(sequence_contrast=None),
        NORTON.replace(
            sequence_contrast=NORTON.sequence_contrast.replace(
                sequence_contrast_weight=None
            )
        ),
    ],
)
def test_a_null_section_removes_the_sequence_term(config: MMContraLoss.Config) -> None:
    batch = formula_batch()
    loss = MMContraLoss(config)
    output = loss(pooled_video=batch["pooled_video"], pooled_text=batch["pooled_text"])
    assert set(output.terms) == {"clip_caption"}
    assert_close_to(output.total, 6.3964446860)


def test_accuracy_counts_both_directions() -> None:
    video = torch.eye(4)
    text = torch.eye(4)[[0, 1, 2, 0]]
    output = MMContraLoss(MMContraLoss.Config())(pooled_video=video, pooled_text=text)
    # Clips 0, 1 and 2 find their caption. Clip 3 scores 0 everywhere, so the first caption wins.
    # Captions 0, 1 and 2 find their clip. Caption 3 finds clip 0.
    assert output.metrics["accuracy"] == 6 / 8
    assert set(output.metrics) == {"accuracy"}


def test_the_temperature_is_constant_by_default_and_learnable_on_request() -> None:
    constant = MMContraLoss(NORTON)
    assert not list(constant.parameters())
    assert not constant.state_dict()
    learnable = MMContraLoss(NORTON.replace(learnable_temperature=True))
    assert set(learnable.state_dict()) == {"logit_scale"}
    batch = formula_batch(torch.float32)
    output = learnable(**batch)
    expected = constant(**batch)
    assert_close_to(output.total, expected.total, rtol=1e-6)
    assert_close_to(output.metrics["temperature"], 0.07, rtol=1e-6)
    output.total.backward()
    assert learnable.logit_scale.grad.abs() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_batches_are_computed_in_float32(dtype: torch.dtype) -> None:
    loss = MMContraLoss(NORTON).eval()
    batch = constant_batch(dtype)
    states = [name for name, value in batch.items() if value.is_floating_point()]
    exact = loss(**batch | {name: batch[name].double() for name in states})

    for name in states:
        batch[name].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = loss(**batch)
    assert output.total.dtype == torch.float32
    assert_close_to(output.total, exact.total, rtol=1e-6)  # measured: 5e-8
    output.total.backward()
    assert len(states) == 4
    for name in states:
        assert batch[name].grad.isfinite().all()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (NORTON.replace(beta=None), ["loss.beta", "null"]),
        (NORTON.replace(alpha_lse=0.001), ["loss.alpha_lse", "0.02", "0.001"]),
        (
            NORTON.replace(alpha_lse=None),
            ["loss.alpha_lse` and `loss.fusion_weight", "both be null", "None and 0.5"],
        ),
        (
            NORTON.replace(sinkhorn_iterations=None),
            ["loss.sinkhorn_iterations", "is null"],
        ),
        (
            MMContraLoss.Config(learnable_temperature=True),
            ["learnable_temperature", "MMContraLoss"],
        ),
    ],
)
def test_mistakes_in_the_configuration(
    config: MMContraLoss.Config, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        MMContraLoss(config)
    for word in words:
        assert word in str(caught.value)


def test_all_mistakes_are_reported_at_once() -> None:
    config = NORTON.replace(beta=None, fusion_weight=None, alpha_lse=0.001)
    with pytest.raises(ConfigError) as caught:
        MMContraLoss(config)
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigError, match="sequence_contrast"):
        SequenceContrastLoss(SequenceContrastLoss.Config())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("pooled_text", math.nan, "already not finite: pooled_text"),
        ("pooled_video", 0.0, "a vector is zero"),
        ("text_outputs", math.inf, "already not finite: text_outputs"),
        ("video_mask_outputs", False, "a clip has no real token"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run(
    key: str, value: float, words: str
) -> None:
    loss = MMContraLoss(NORTON)
    batch = constant_batch()
    batch[key][3] = value
    with pytest.raises(NonFiniteLossError, match=words) as caught:
        loss(**batch)
    message = str(caught.value)
    assert "video_paragraph is nan" in message
    assert "pooled_video [16, 12]" in message
