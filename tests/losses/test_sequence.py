"""The video-paragraph contrast: its options, its transport, its memory, and wrong batches."""

import pytest
import torch
from torch import Tensor

from mmpt.errors import UserError
from mmpt.losses import MMContraLoss, NonFiniteLossError, SequenceContrastLoss
from mmpt.losses.sequence import block_transport, bucket_value, fused_similarity
from mmpt.losses.sinkhorn import transport
from tests.support.worked_example import (
    NORTON,
    assert_close_to,
    constant_batch,
    formula_batch,
)


def test_the_outer_sums_of_the_paper_do_not_count_padding() -> None:
    batch = formula_batch()
    config = NORTON.replace(masked_outer_sum="paper")
    output = SequenceContrastLoss(config)(**batch)
    assert_close_to(output.total, 4.4875646629)
    fused = fused_similarity(config, batch)
    assert_close_to(bucket_value(fused, 0.3), 0.4241598688)


def test_similarities_of_the_paper_are_not_normalised() -> None:
    batch = formula_batch()
    # With such a large weight, only the pooled cosines have an effect.
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
def test_without_the_fine_grained_similarity_the_pooled_one_is_used(norm: str) -> None:
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


def test_the_released_mass_rescales_the_plan_of_the_paper() -> None:
    fused = fused_similarity(NORTON, formula_batch())
    released = block_transport(NORTON, fused)
    paper = block_transport(NORTON.replace(transport_mass="paper"), fused)
    assert_close_to(released.sum((2, 3)), torch.full((4, 4), 4.0))
    mass = paper.sum((2, 3), keepdim=True)
    assert (mass < 4).all()  # some of it is in the bucket
    assert_close_to(paper * (4 / mass), released)


def test_without_prompt_ratio_the_transport_is_plain() -> None:
    contrast = NORTON.sequence_contrast.replace(prompt_ratio=None)
    config = NORTON.replace(sequence_contrast=contrast)
    fused = fused_similarity(NORTON, formula_batch()).detach()
    plan = block_transport(config, fused)
    assert_close_to(plan[2, 1], transport(fused[8:12, 4:8], 50, 0.1))
    assert_close_to(plan.sum((2, 3)), torch.full((4, 4), 4.0))
    output = SequenceContrastLoss(config)(**formula_batch())
    assert output.total.isfinite()


def test_the_bucket_value_is_at_least_the_smallest_similarity() -> None:
    matrix = torch.diag(torch.tensor([0.5, 0.2, 0.9]))
    # int(0.3 * 3) = 0 is an error in the released code.
    assert bucket_value(matrix, 0.3) == 0.2
    assert bucket_value(matrix, 0.7) == 0.5
    assert bucket_value(matrix, 1.0) == 0.9


@pytest.mark.parametrize(("theta", "tau"), [(9.0, 0.01), (-1.0, 1.0)])
def test_the_temperature_is_clamped(theta: float, tau: float) -> None:
    loss = SequenceContrastLoss(NORTON.replace(learnable_temperature=True))
    with torch.no_grad():
        loss.logit_scale.fill_(theta)
    output = loss(**formula_batch())
    assert_close_to(output.metrics["temperature"], tau, rtol=1e-4)


def test_a_batch_that_cannot_be_divided_into_sequences_is_an_error() -> None:
    loss = MMContraLoss(NORTON)
    batch = {name: value[:14] for name, value in formula_batch().items()}
    message = r"num_video_per_batch.*clip_per_video.*threshold` \(4\).*has 14"
    with pytest.raises(UserError, match=message):
        loss(**batch)


def test_a_batch_without_contrast_is_an_error() -> None:
    loss = SequenceContrastLoss(NORTON)
    batch = {name: tensor[[0] * 16] for name, tensor in constant_batch().items()}
    with pytest.raises(NonFiniteLossError, match="all similarities in the batch"):
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
