"""The contrastive losses: a worked example, options, wrong configurations, dtypes and failures.

The worked example is that of the specification. It has ten digits.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmpt.config.schema import LossConfig
from mmpt.errors import ConfigError, UserError
from mmpt.losses import (
    MMContraLoss,
    NonFiniteLossError,
    SequenceContrastLoss,
    T2VContraLoss,
    V2TContraLoss,
)
from mmpt.losses.nce import dot_products
from mmpt.losses.sequence import (
    block_transport,
    bucket_value,
    fused_similarity,
    paragraph_logits,
    sequence_blocks,
)
from mmpt.losses.sinkhorn import transport
from tests.support.norton import norton_loss

NORTON = norton_loss(threshold=4)


def with_sequence(**changes: Any) -> MMContraLoss.Config:
    return NORTON.replace(sequence_contrast=NORTON.sequence_contrast.replace(**changes))


def formula_batch(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Returns the batch of the worked example: sums of sines and cosines, and masks.

    It has 16 clips, 6 video positions, 9 text positions and a hidden size of 12. Pooled states are
    masked means. The states of tokens require a gradient.
    """
    b, v, t, d = (torch.arange(n, dtype=torch.float64) for n in (16, 6, 9, 12))
    clips = b[:, None, None]
    video = (0.7 * clips + 1.1 * v[:, None] + 0.3 * d).sin() + 0.5 * (
        0.2 * clips * d
    ).cos()
    text = (0.5 * clips + 0.9 * t[:, None] + 0.4 * d).cos() + 0.5 * (
        0.3 * clips * d
    ).sin()
    video_mask = ((v >= 1) & (v <= 1 + b[:, None] % 4)) | (v == 5)
    text_mask = (t >= 1) & (t <= 2 + b[:, None] % 6)
    batch = {"video_mask_outputs": video_mask, "text_mask_outputs": text_mask}
    for tower, states in (("video", video), ("text", text)):
        states = states.to(dtype).requires_grad_()
        mask = batch[f"{tower}_mask_outputs"]
        num_real = mask.sum(1, keepdim=True)
        total = (states * mask[..., None]).sum(1)
        batch[f"{tower}_outputs"] = states
        batch[f"pooled_{tower}"] = total / num_real
    return batch


def constant_batch(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Returns the batch of the worked example without gradient."""
    return {name: tensor.detach() for name, tensor in formula_batch(dtype).items()}


def assert_close_to(value: Any, expected: Any, rtol: float = 2e-8) -> None:
    """Compares with numbers of ten digits.

    The recorded tau is a float32, so the tolerance is 2e-8. Measured: at most 1.4e-8.
    """
    torch.testing.assert_close(
        torch.as_tensor(value).detach().double(),
        torch.as_tensor(expected, dtype=torch.float64).detach(),
        rtol=rtol,
        atol=1e-9,
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


def test_paper_outer_sums_do_not_count_padding() -> None:
    batch = formula_batch()
    config = NORTON.replace(masked_outer_sum="paper")
    output = SequenceContrastLoss(config)(**batch)
    assert_close_to(output.total, 4.4875646629)
    fused = fused_similarity(config, batch)
    assert_close_to(bucket_value(fused, 0.3), 0.4241598688)


def test_similarities_of_the_paper_are_not_normalised() -> None:
    batch = formula_batch()
    # With such a weight, only the pooled cosines remain.
    config = NORTON.replace(similarity_norm="paper", fusion_weight=1e12)
    fused = fused_similarity(config, batch)
    cosines = torch.cosine_similarity(
        batch["pooled_text"][:, None], batch["pooled_video"][None], dim=-1
    )
    assert_close_to(fused, cosines.tolist())
    released = fused_similarity(NORTON, batch)
    assert released.min() >= 0
    assert released.max() <= 1


@pytest.mark.parametrize("norm", ["released", "paper"])
def test_without_a_fine_grained_similarity_the_pooled_one_remains(norm: str) -> None:
    batch = formula_batch()
    config = NORTON.replace(similarity_norm=norm)
    pooled = config.replace(alpha_lse=None, fusion_weight=None)
    mostly_pooled = config.replace(fusion_weight=1e12)
    assert_close_to(
        fused_similarity(pooled, batch),
        fused_similarity(mostly_pooled, batch).tolist(),
    )
    loss = MMContraLoss(pooled)(**batch).total
    assert_close_to(loss, MMContraLoss(mostly_pooled)(**batch).total.item())


def test_released_mass_rescales_the_plan_of_the_paper() -> None:
    fused = fused_similarity(NORTON, formula_batch())
    released = block_transport(NORTON, fused)
    paper = block_transport(NORTON.replace(transport_mass="paper"), fused)
    assert_close_to(released.sum((2, 3)), torch.full((4, 4), 4.0))
    mass = paper.sum((2, 3), keepdim=True)
    assert (mass < 4).all()  # some of it is in the bucket
    assert_close_to(paper * (4 / mass), released)


def test_without_prompt_ratio_the_transport_is_plain() -> None:
    config = with_sequence(prompt_ratio=None)
    fused = fused_similarity(NORTON, formula_batch()).detach()
    plan = block_transport(config, fused)
    assert_close_to(plan[2, 1], transport(fused[8:12, 4:8], 50, 0.1))
    assert_close_to(plan.sum((2, 3)), torch.full((4, 4), 4.0))
    output = SequenceContrastLoss(config)(**formula_batch())
    assert output.total.isfinite()


def test_clip_temperature_of_the_paper_divides_the_logits_only() -> None:
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
        with_sequence(sequence_contrast_weight=None),
    ],
)
def test_null_removes_the_sequence_term(config: MMContraLoss.Config) -> None:
    batch = formula_batch()
    loss = MMContraLoss(config)
    output = loss(pooled_video=batch["pooled_video"], pooled_text=batch["pooled_text"])
    assert set(output.terms) == {"clip_caption"}
    assert_close_to(output.total, 6.3964446860)


def test_bucket_value_is_at_least_the_smallest_similarity() -> None:
    matrix = torch.diag(torch.tensor([0.5, 0.2, 0.9]))
    # Int(0.3 * 3) = 0 in the released code, an error there.
    assert bucket_value(matrix, 0.3) == 0.2
    assert bucket_value(matrix, 0.7) == 0.5
    assert bucket_value(matrix, 1.0) == 0.9


def test_accuracy_counts_both_directions() -> None:
    video = torch.eye(4)
    text = torch.eye(4)[[0, 1, 2, 0]]
    output = MMContraLoss(MMContraLoss.Config())(pooled_video=video, pooled_text=text)
    # Clips 0, 1 and 2 find their caption. Clip 3 scores 0 everywhere, so the first caption wins.
    # Captions 0, 1 and 2 find their clip. Caption 3 finds clip 0.
    assert output.metrics["accuracy"] == 6 / 8
    assert set(output.metrics) == {"accuracy"}


def test_temperature_is_constant_by_default_and_learnable_on_request() -> None:
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


@pytest.mark.parametrize(("theta", "tau"), [(9.0, 0.01), (-1.0, 1.0)])
def test_temperature_is_clamped(theta: float, tau: float) -> None:
    loss = SequenceContrastLoss(NORTON.replace(learnable_temperature=True))
    with torch.no_grad():
        loss.logit_scale.fill_(theta)
    output = loss(**formula_batch())
    assert_close_to(output.metrics["temperature"], tau, rtol=1e-4)


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


def test_a_batch_that_does_not_divide_into_sequences() -> None:
    loss = MMContraLoss(NORTON)
    batch = {name: value[:14] for name, value in formula_batch().items()}
    message = r"num_video_per_batch.*clip_per_video.*threshold` \(4\).*has 14"
    with pytest.raises(UserError, match=message):
        loss(**batch)


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
        ("pooled_text", math.nan, "Not finite already: pooled_text"),
        ("pooled_video", 0.0, "zero vector"),
        ("text_outputs", math.inf, "Not finite already: text_outputs"),
        ("video_mask_outputs", False, "clip without a real token"),
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


def test_a_batch_without_contrast_is_an_error() -> None:
    loss = SequenceContrastLoss(NORTON)
    batch = {name: tensor[[0] * 16] for name, tensor in constant_batch().items()}
    with pytest.raises(NonFiniteLossError, match="no contrast"):
        loss(**batch)


def test_only_a_few_matrices_are_kept_for_backward() -> None:
    num = 64
    mask = torch.ones(num, 20, dtype=torch.bool)
    batch = {"video_mask_outputs": mask, "text_mask_outputs": mask}
    for tower in ("video", "text"):
        batch[f"pooled_{tower}"] = torch.randn(num, 4).requires_grad_()
        batch[f"{tower}_outputs"] = torch.randn(num, 20, 4).requires_grad_()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        MMContraLoss(NORTON)(**batch)
    for value in batch.values():
        kept.pop(value.untyped_storage().data_ptr(), None)
    # Measured: 10.3 matrices; pairs of tokens would be 400.
    assert sum(kept.values()) < 20 * 4 * num**2
