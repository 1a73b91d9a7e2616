"""Norton's video-paragraph contrast: sequences of clips against sequences of captions, aligned by bucket transport.

Legend: B clips, L clips per sequence (`threshold`), S = B / L sequences, D hidden size, T and V token positions; G is
the fused similarity (rows captions, columns clips), rho the bucket value.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmpt.config.schema import LossConfig
from mmpt.errors import UserError
from mmpt.losses.base import LOSSES, Loss, LossOutput, match_accuracy, symmetric_cross_entropy, wide, yaml_value
from mmpt.losses.similarity import bucket_value, min_max, pooled_similarity, sequence_blocks, token_similarity
from mmpt.losses.sinkhorn import bucket_transport, transport
from mmpt.losses.tokenscore import MIN_ALPHA


def fused_similarity(
    config: LossConfig,
    pooled_video: Tensor,
    pooled_text: Tensor,
    video_outputs: Tensor,
    text_outputs: Tensor,
    video_mask_outputs: Tensor,
    text_mask_outputs: Tensor,
) -> Tensor:
    """Return G = (w M + (W1 + W2) / 2) / (w + 1), float32 [B, B]: pooled cosine M and fine-grained scores W1, W2.

    `similarity_norm: released` first maps each of the three to [0, 1] over the whole batch; `paper` takes them as is.

    Args:
        pooled_video, pooled_text: float [B, D].
        video_outputs, text_outputs: float [B, V, D] and [B, T, D], token states.
        video_mask_outputs, text_mask_outputs: bool [B, V] and [B, T], True = pooled position.
    Source: Norton (arXiv 2401.16702), Eq. 5; the fusion weight is from the released code.
    """
    assert config.alpha_lse is not None
    assert config.fusion_weight is not None
    pooled = pooled_similarity(wide(pooled_text), wide(pooled_video))
    text_to_video, video_to_text = token_similarity(
        text_outputs,
        text_mask_outputs,
        video_outputs,
        video_mask_outputs,
        alpha=config.alpha_lse,
        masked_outer_sum=config.masked_outer_sum == "released",
    )
    if config.similarity_norm == "released":
        pooled, text_to_video, video_to_text = min_max(pooled), min_max(text_to_video), min_max(video_to_text)
    weight = config.fusion_weight
    return (weight * pooled + (text_to_video + video_to_text) / 2) / (weight + 1)


def block_transport(config: LossConfig, fused_BB: Tensor) -> Tensor:
    """Return the transport plan of every block of G, [S, S, L, L], without gradient.

    With `prompt_ratio` the plan has a bucket of value rho, else it is plain. `transport_mass: released` rescales each
    plan to mass L; `paper` leaves it at one per row, less what went into the bucket.

    Source: Norton, Eq. 4 and the alignable prompt bucket.
    """
    sequence = config.sequence_contrast
    assert sequence is not None
    assert sequence.threshold is not None
    assert sequence.scale is not None
    assert config.sinkhorn_iterations is not None
    blocks = sequence_blocks(fused_BB.detach(), sequence.threshold)
    if sequence.prompt_ratio is None:
        plan = transport(blocks, config.sinkhorn_iterations, sequence.scale)
    else:
        rho = bucket_value(fused_BB, sequence.prompt_ratio)
        plan = bucket_transport(blocks, rho, config.sinkhorn_iterations, sequence.scale)
    if config.transport_mass == "released":
        plan = plan * (sequence.threshold / plan.sum((-2, -1), keepdim=True))
    return plan


def paragraph_logits(config: LossConfig, scale: Tensor, fused_BB: Tensor) -> Tensor:
    """Return X [S, S]: scale * sum of plan * G over each block (rows caption sequences); gradient through G and scale.

    Args:
        scale: float scalar, 1 / tau.
        fused_BB: float [B, B], G; B is a multiple of L.
    Raises:
        UserError: B is not a multiple of L.
    """
    assert config.sequence_contrast is not None
    assert config.sequence_contrast.threshold is not None
    num_clips, length = len(fused_BB), config.sequence_contrast.threshold
    if num_clips % length:
        raise UserError(
            "a batch (`dataset.num_video_per_batch` * `dataset.clip_per_video` clips) must be a multiple of "
            f"`loss.sequence_contrast.threshold` ({length}) clips, but has {num_clips}; change one of the three."
        )
    return scale * (block_transport(config, fused_BB) * sequence_blocks(fused_BB, length)).sum((-2, -1))


def sequence_problems(config: LossConfig, clip_per_video: int | None) -> list[str]:
    """Return the mistakes in the keys that the video-paragraph term reads, one sentence each."""
    sequence = config.sequence_contrast
    if sequence is None:
        return ["`loss.sequence_contrast` must be a section, but is null."]
    problems = []
    lower_bounds: list[tuple[str, float | None, float]] = [
        ("sinkhorn_iterations", config.sinkhorn_iterations, 1),
        ("alpha_lse", config.alpha_lse, MIN_ALPHA),
        ("fusion_weight", config.fusion_weight, 0),
        ("sequence_contrast.threshold", sequence.threshold, 1),
    ]
    for key, value, low in lower_bounds:
        if value is None or not value >= low:
            problems.append(f"`loss.{key}` must be at least {low} for sequence contrast, but is {yaml_value(value)}.")
    if sequence.scale is None or not sequence.scale > 0:
        problems.append(f"`loss.sequence_contrast.scale` must be greater than 0, but is {yaml_value(sequence.scale)}.")
    if sequence.prompt_ratio is not None and not 0 < sequence.prompt_ratio <= 1:
        problems.append(
            "`loss.sequence_contrast.prompt_ratio` must be greater than 0 and at most 1, or null for no bucket, "
            f"but is {sequence.prompt_ratio}."
        )
    if clip_per_video is not None and sequence.threshold and clip_per_video % sequence.threshold:
        problems.append(
            "`dataset.clip_per_video` must be a multiple of `loss.sequence_contrast.threshold` "
            f"({sequence.threshold}), but is {clip_per_video}."
        )
    return problems


@LOSSES.register
class SequenceContrastLoss(Loss):
    """The video-paragraph term alone, unweighted. Sequences of the same video are negatives of each other."""

    @property
    def uses_temperature(self) -> bool:
        """True: tau divides the scores of sequences."""
        return True

    def find_problems(self) -> list[str]:
        """Return the mistakes in `config`, one sentence each."""
        return super().find_problems() + sequence_problems(self.config, self.clip_per_video)

    def compute(
        self,
        *,
        pooled_video: Tensor,
        pooled_text: Tensor,
        video_outputs: Tensor,
        text_outputs: Tensor,
        video_mask_outputs: Tensor,
        text_mask_outputs: Tensor,
        **_: Any,
    ) -> LossOutput:
        """Return term `video_paragraph` and metrics `accuracy` (of sequences) and `temperature`.

        Args:
            pooled_video, pooled_text: float [B, D], not normalised.
            video_outputs, text_outputs: float [B, V, D], [B, T, D].
            video_mask_outputs, text_mask_outputs: bool [B, V], [B, T], True = pooled position.
        """
        scale = self.scale(wide(pooled_video))
        fused = fused_similarity(
            self.config, pooled_video, pooled_text, video_outputs, text_outputs, video_mask_outputs, text_mask_outputs
        )
        logits = paragraph_logits(self.config, scale, fused)
        return LossOutput(
            terms={"video_paragraph": symmetric_cross_entropy(logits)},
            metrics={"accuracy": match_accuracy(logits), "temperature": 1 / scale.detach()},
        )
