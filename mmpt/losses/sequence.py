"""Norton's video-paragraph contrast: sequences of clips against sequences of captions, aligned by
bucket transport.

Legend: B clips, L clips per sequence (`threshold`), S = B / L sequences, D hidden size, T and V
token positions; G is the fused similarity (rows captions, columns clips), rho the bucket value.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmpt.batch import ModelOutput
from mmpt.config.schema import LossConfig
from mmpt.errors import UserError
from mmpt.losses.base import LOSSES, Loss, LossOutput, match_accuracy, symmetric_cross_entropy
from mmpt.losses.precision import wide
from mmpt.losses.sinkhorn import bucket_transport, transport
from mmpt.losses.tokenscore import MIN_ALPHA, token_similarity

STATES = tuple(ModelOutput.__annotations__)
"""Names of both towers' states of a batch, which the video-paragraph term reads."""


def pooled_similarity(text_BD: Tensor, video_BD: Tensor) -> Tensor:
    """Return the cosines of pooled states, float [B, B]; a zero vector gives nan."""
    text_BD = text_BD / torch.linalg.vector_norm(text_BD, dim=1, keepdim=True)
    video_BD = video_BD / torch.linalg.vector_norm(video_BD, dim=1, keepdim=True)
    return text_BD @ video_BD.T


def min_max(matrix: Tensor) -> Tensor:
    """Map the smallest entry to 0 and the largest to 1, with gradient through both; a constant
    matrix gives nan.

    Nothing is added to the denominator: a batch without contrast is an error that the loss's
    finiteness check reports. Source: released Norton code (not in the paper).
    """
    low = matrix.min()
    return (matrix - low) / (matrix.max() - low)


def fused_similarity(config: LossConfig, batch: Mapping[str, Tensor]) -> Tensor:
    """Return G = (w M + (W1 + W2) / 2) / (w + 1), float32 [B, B]: pooled cosine M and fine-grained
    scores W1, W2.

    `similarity_norm: released` first maps each of the three to [0, 1] over the whole batch; `paper`
    takes them as is. Source: Norton (arXiv 2401.16702), Eq. 5; the fusion weight is from the
    released code.

    Args:
        batch: the `STATES`, as in `ModelOutput`.
    """
    assert config.alpha_lse is not None
    assert config.fusion_weight is not None
    pooled = pooled_similarity(wide(batch["pooled_text"]), wide(batch["pooled_video"]))
    text_to_video, video_to_text = token_similarity(
        batch["text_outputs"],
        batch["text_mask_outputs"],
        batch["video_outputs"],
        batch["video_mask_outputs"],
        alpha=config.alpha_lse,
        masked_outer_sum=config.masked_outer_sum == "released",
    )
    if config.similarity_norm == "released":
        pooled, text_to_video = min_max(pooled), min_max(text_to_video)
        video_to_text = min_max(video_to_text)
    weight = config.fusion_weight
    return (weight * pooled + (text_to_video + video_to_text) / 2) / (weight + 1)


def bucket_value(similarity_BB: Tensor, ratio: float) -> Tensor:
    """Return rho, the k-th smallest similarity of a caption to its own clip, k = max(1, int(ratio *
    B)).

    That is the bottom `ratio` quantile (the comment in the released YAML says top, wrongly).
    Source: Norton, alignable prompt bucket.
    """
    diagonal_B = similarity_BB.detach().diagonal()
    return diagonal_B.kthvalue(max(1, int(ratio * len(diagonal_B)))).values


def sequence_blocks(similarity_BB: Tensor, length: int) -> Tensor:
    """View [B, B] as [S, S, L, L]: block (i, j) holds the captions of sequence i against the clips
    of sequence j.
    """
    num = len(similarity_BB) // length
    return similarity_BB.view(num, length, num, length).transpose(1, 2)


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
    aligned = block_transport(config, fused_BB) * sequence_blocks(fused_BB, length)
    return scale * aligned.sum((-2, -1))


@LOSSES.register
class SequenceContrastLoss(Loss):
    """The video-paragraph term alone, unweighted. Sequences of the same video are negatives of each
    other.
    """

    contrasts = True
    needs = STATES
    uses_temperature = True
    has_sequence_term = True

    @property
    def rows_together(self) -> int:  # type: ignore[override]  # read only
        """Clips of a sequence, if there is a video-paragraph term."""
        sequence = self.config.sequence_contrast
        return (sequence and self.has_sequence_term and sequence.threshold) or 1

    def find_problems(self) -> list[str]:
        """Return what the video-paragraph term needs beyond the bounds of single keys, one sentence
        per mistake.
        """
        config, sequence = self.config, self.config.sequence_contrast
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
        if config.alpha_lse is not None and config.alpha_lse < MIN_ALPHA:
            problems.append(
                f"`loss.alpha_lse` must be at least {MIN_ALPHA}, but is {config.alpha_lse}."
            )
        return problems

    def sequence_logits(self, batch: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        """Return the scores of all pairs of sequences, X [S, S]."""
        return paragraph_logits(self.config, scale, fused_similarity(self.config, batch))

    def compute(self, **batch: Any) -> LossOutput:
        """Return term `video_paragraph` and metrics `accuracy` (of sequences) and `temperature`.

        Args:
            batch: as `STATES`.
        """
        scale = self.scale(wide(batch["pooled_video"]))
        logits = self.sequence_logits(batch, scale)
        return LossOutput(
            terms={"video_paragraph": symmetric_cross_entropy(logits)},
            metrics={"accuracy": match_accuracy(logits), "temperature": 1 / scale.detach()},
        )
