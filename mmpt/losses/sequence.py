"""Norton's video-paragraph contrast: sequences of clips against sequences of captions, aligned by
bucket transport.

Legend: B clips, L clips per sequence (`threshold`), S = B / L sequences, D hidden size, T and V
token positions; G is the fused similarity (rows captions, columns clips), rho the bucket value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from mmpt.config.schema import LossConfig
from mmpt.errors import UserError
from mmpt.losses.base import LOSSES, Loss, LossOutput, match_accuracy, symmetric_cross_entropy
from mmpt.losses.precision import wide
from mmpt.losses.similarity import (
    bucket_value,
    min_max,
    pooled_similarity,
    sequence_blocks,
    token_similarity,
)
from mmpt.losses.sinkhorn import bucket_transport, transport
from mmpt.losses.tokenscore import MIN_ALPHA


class States(NamedTuple):
    """Both towers' states of a batch of clips and captions; in the masks True is a pooled
    position.
    """

    pooled_video: Tensor  # float [B, D], not normalised
    pooled_text: Tensor  # float [B, D]
    video_outputs: Tensor  # float [B, V, D]
    text_outputs: Tensor  # float [B, T, D]
    video_mask_outputs: Tensor  # bool [B, V]
    text_mask_outputs: Tensor  # bool [B, T]

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> States:
        """Pick the fields from all that a loss is handed."""
        return cls(*(batch[name] for name in cls._fields))


def fused_similarity(config: LossConfig, states: States) -> Tensor:
    """Return G = (w M + (W1 + W2) / 2) / (w + 1), float32 [B, B]: pooled cosine M and fine-grained
    scores W1, W2.

    `similarity_norm: released` first maps each of the three to [0, 1] over the whole batch; `paper`
    takes them as is. Source: Norton (arXiv 2401.16702), Eq. 5; the fusion weight is from the
    released code.
    """
    assert config.alpha_lse is not None
    assert config.fusion_weight is not None
    pooled = pooled_similarity(wide(states.pooled_text), wide(states.pooled_video))
    text_to_video, video_to_text = token_similarity(
        states.text_outputs,
        states.text_mask_outputs,
        states.video_outputs,
        states.video_mask_outputs,
        alpha=config.alpha_lse,
        masked_outer_sum=config.masked_outer_sum == "released",
    )
    if config.similarity_norm == "released":
        pooled, text_to_video, video_to_text = (
            min_max(pooled),
            min_max(text_to_video),
            min_max(video_to_text),
        )
    weight = config.fusion_weight
    return (weight * pooled + (text_to_video + video_to_text) / 2) / (weight + 1)


def block_transport(config: LossConfig, fused_BB: Tensor) -> Tensor:
    """Return the transport plan of every block of G, [S, S, L, L], without gradient.

    With `prompt_ratio` the plan has a bucket of value rho, else it is plain. `transport_mass:
    released` rescales each plan to mass L; `paper` leaves it at one per row, less what went into
    the bucket.

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
    """Return X [S, S]: scale * sum of plan * G over each block (rows caption sequences); gradient
    through G and scale.

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
            "a batch (`dataset.num_video_per_batch` * `dataset.clip_per_video` clips) must be a "
            f"multiple of `loss.sequence_contrast.threshold` ({length}) clips, but has "
            f"{num_clips}; change one of the three."
        )
    return scale * (block_transport(config, fused_BB) * sequence_blocks(fused_BB, length)).sum(
        (-2, -1)
    )


def sequence_length(config: LossConfig) -> int:
    """Return L, the number of clips of a sequence; 1 without sequences."""
    sequence = config.sequence_contrast
    return sequence.threshold if sequence is not None and sequence.threshold else 1


def sequence_problems(config: LossConfig, clip_per_video: int | None) -> list[str]:
    """Return what the video-paragraph term needs beyond the bounds of single keys, one sentence per
    mistake.
    """
    sequence = config.sequence_contrast
    if sequence is None:
        return ["`loss.sequence_contrast` must be a section, but is null."]
    required = {
        "sinkhorn_iterations": config.sinkhorn_iterations,
        "alpha_lse": config.alpha_lse,
        "fusion_weight": config.fusion_weight,
        "sequence_contrast.threshold": sequence.threshold,
        "sequence_contrast.scale": sequence.scale,
    }
    problems = [
        f"`loss.{key}` must be a number for sequence contrast, but is null."
        for key, value in required.items()
        if value is None
    ]
    if config.alpha_lse is not None and 0 < config.alpha_lse < MIN_ALPHA:
        problems.append(
            f"`loss.alpha_lse` must be at least {MIN_ALPHA}, but is {config.alpha_lse}."
        )
    if clip_per_video is not None and sequence.threshold and clip_per_video % sequence.threshold:
        problems.append(
            "`dataset.clip_per_video` must be a multiple of `loss.sequence_contrast.threshold` "
            f"({sequence.threshold}), but is {clip_per_video}."
        )
    return problems


@LOSSES.register
class SequenceContrastLoss(Loss):
    """The video-paragraph term alone, unweighted. Sequences of the same video are negatives of each
    other.
    """

    contrasts = True
    needs = States._fields

    @property
    def rows_together(self) -> int:
        """Clips of a sequence."""
        return sequence_length(self.config)

    @property
    def uses_temperature(self) -> bool:
        """True: tau divides the scores of sequences."""
        return True

    def find_problems(self) -> list[str]:
        """Return the mistakes in `config`, one sentence each."""
        return super().find_problems() + sequence_problems(self.config, self.clip_per_video)

    def compute(self, **batch: Any) -> LossOutput:
        """Return term `video_paragraph` and metrics `accuracy` (of sequences) and `temperature`.

        Args:
            batch: the fields of `States`.
        """
        states = States.of(batch)
        scale = self.scale(wide(states.pooled_video))
        logits = paragraph_logits(self.config, scale, fused_similarity(self.config, states))
        return LossOutput(
            terms={"video_paragraph": symmetric_cross_entropy(logits)},
            metrics={"accuracy": match_accuracy(logits), "temperature": 1 / scale.detach()},
        )
