"""Contrastive losses on pooled states: plain text-video NCE (VideoCLIP), and Norton's clip term
with transport targets.

Quirks of the released code that its published numbers rest on are the default; an option in
`LossConfig` selects the paper's form. Legend: B clips, D hidden size; A = video @ text^T, [B, B],
rows clips, columns captions.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmpt.losses.base import LOSSES, Loss, LossOutput, match_accuracy, symmetric_cross_entropy
from mmpt.losses.precision import wide
from mmpt.losses.sequence import STATES, SequenceContrastLoss
from mmpt.losses.sinkhorn import transport

POOLED = ("pooled_video", "pooled_text")


def rectified_cross_entropy(logits_BB: Tensor, plan_BB: Tensor, beta: float) -> Tensor:
    """Return the mean over rows of the cross-entropy of `logits_BB` against beta * plan + (1 -
    beta) * identity.

    Args:
        logits_BB: float [B, B].
        plan_BB: float [B, B], transport plan with rows that sum to about 1, no gradient.
        beta: weight of the plan; 0 gives the plain loss.
    Source: Norton (arXiv 2401.16702), Eq. 6 and 7: faulty negatives.
    """
    log_probs = logits_BB.log_softmax(1)
    return -(beta * (plan_BB * log_probs).sum(1) + (1 - beta) * log_probs.diagonal()).mean()


def dot_products(pooled_video: Tensor, pooled_text: Tensor) -> Tensor:
    """Return A = video @ text^T, [B, B], in float32 or wider; states are not normalised (released
    and VideoCLIP).
    """
    return wide(pooled_video) @ wide(pooled_text).T


class _OneDirection(Loss):
    """Common part of `T2VContraLoss` and `V2TContraLoss`."""

    contrasts = True
    needs = POOLED
    rows_are_text: bool

    def compute(self, *, pooled_video: Tensor, pooled_text: Tensor, **_: Any) -> LossOutput:
        """Return term `clip_caption` and metric `accuracy`; `pooled_video` and `pooled_text` are
        float [B, D].
        """
        logits = dot_products(pooled_video, pooled_text)
        if self.rows_are_text:
            logits = logits.T
        term = cross_entropy(logits, torch.arange(len(logits), device=logits.device))
        return LossOutput(
            terms={"clip_caption": term}, metrics={"accuracy": match_accuracy(logits)}
        )


@LOSSES.register
class T2VContraLoss(_OneDirection):
    """Text to video: each caption must find its clip among the batch. Duplicates in a batch are not
    masked.
    """

    rows_are_text = True


@LOSSES.register
class V2TContraLoss(_OneDirection):
    """Video to text: each clip must find its caption among the batch."""

    rows_are_text = False


@LOSSES.register
class MMContraLoss(SequenceContrastLoss):
    """Both directions: VideoCLIP's plain loss when `sinkhorn_iterations` is null, else Norton's two
    terms.

    The video-paragraph term is left out when `sequence_contrast` or its weight is null.
    `clip_temperature: paper` divides A by tau in the clip term's softmax (the transport keeps A as
    it is).

    Source: VideoCLIP (arXiv 2109.14084), Eq. 1-3; Norton (arXiv 2401.16702), Eq. 3-7.
    """

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # read only
        """The pooled states, and with the video-paragraph term all states."""
        return STATES if self.has_sequence_term else POOLED

    @property
    def has_sequence_term(self) -> bool:  # type: ignore[override]  # read only
        """True when the video-paragraph term is part of the loss."""
        sequence = self.config.sequence_contrast
        return sequence is not None and sequence.sequence_contrast_weight is not None

    @property
    def uses_temperature(self) -> bool:  # type: ignore[override]  # read only
        """True when tau is in some term."""
        has_transport = self.config.sinkhorn_iterations is not None
        in_clip_term = has_transport and self.config.clip_temperature == "paper"
        return self.has_sequence_term or in_clip_term

    def find_problems(self) -> list[str]:
        """Return the mistakes in `config`, one sentence each."""
        problems = super().find_problems() if self.has_sequence_term else []
        if self.config.sinkhorn_iterations is not None and self.config.beta is None:
            problems.append(
                "`loss.beta` must be a number from 0 to 1 beside `loss.sinkhorn_iterations`, but "
                "is null."
            )
        return problems

    def compute(self, **batch: Any) -> LossOutput:
        """Return terms `clip_caption` and, where configured, `video_paragraph`; metrics `accuracy`,
        `temperature`.

        Args:
            batch: as `STATES`; without a video-paragraph term the two pooled ones are enough.
        """
        logits = dot_products(batch["pooled_video"], batch["pooled_text"])
        metrics = {"accuracy": match_accuracy(logits)}
        scale = self.scale(logits)
        if self.uses_temperature:
            metrics["temperature"] = 1 / scale.detach()
        terms = {"clip_caption": self._clip_term(logits, scale)}
        if self.has_sequence_term:
            sequence = self.config.sequence_contrast
            assert sequence is not None
            assert sequence.sequence_contrast_weight is not None
            term = symmetric_cross_entropy(self.sequence_logits(batch, scale))
            terms["video_paragraph"] = sequence.sequence_contrast_weight * term
        return LossOutput(terms, metrics)

    def _clip_term(self, logits: Tensor, scale: Tensor) -> Tensor:
        """Return the clip-caption loss of A."""
        config = self.config
        if config.sinkhorn_iterations is None:
            return symmetric_cross_entropy(logits)
        assert config.beta is not None
        plan = transport(logits.detach(), config.sinkhorn_iterations)
        if config.clip_temperature == "paper":
            logits = logits * scale
        video_to_text = rectified_cross_entropy(logits, plan, config.beta)
        return video_to_text + rectified_cross_entropy(logits.T, plan.T, config.beta)
