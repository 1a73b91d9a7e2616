"""Contrastive losses on the pooled states of clips and captions.

Two kinds are defined here: the plain text-video NCE of VideoCLIP, and Norton's clip-caption term,
whose targets come from optimal transport. Where the released code and the paper differ, the
released form is the default, because the published numbers depend on it. Keys in `Config`
select the paper's form.

Legend: B clips, D hidden size. A = video @ text^T is the similarity matrix [B, B]; its rows are
clips, its columns are captions.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmpt.config.schema import Released, Share
from mmpt.losses.base import (
    LOSSES,
    Loss,
    LossOutput,
    match_accuracy,
    symmetric_cross_entropy,
    upcast,
)
from mmpt.losses.sequence import STATES, SequenceConfig, SequenceContrastLoss
from mmpt.losses.sinkhorn import transport

POOLED = ("pooled_video", "pooled_text")


def rectified_cross_entropy(logits_BB: Tensor, plan_BB: Tensor, beta: float) -> Tensor:
    """Returns the cross-entropy of each row against rectified targets, averaged over the rows.

    The usual target of a row is its own column (the identity matrix). Other columns may match the
    row as well; they are faulty negatives. The transport plan finds them, and the target becomes
    beta * plan + (1 - beta) * identity.

    Args:
        logits_BB: float [B, B].
        plan_BB: float [B, B], a transport plan without gradient. Its rows sum to about 1.
        beta: weight of the plan. 0 gives the plain cross-entropy.
    Source: Norton (arXiv 2401.16702), Eq. 6 and 7.
    """
    log_probs = logits_BB.log_softmax(1)
    plan_B = (plan_BB * log_probs).sum(1)
    identity_B = log_probs.diagonal()
    return -(beta * plan_B + (1 - beta) * identity_B).mean()


def dot_products(pooled_video: Tensor, pooled_text: Tensor) -> Tensor:
    """Returns A = video @ text^T, float [B, B], in float32 or float64.

    The states are not normalised, as in VideoCLIP and in Norton's released code.
    """
    return upcast(pooled_video) @ upcast(pooled_text).T


class _OneDirectionLoss(Loss):
    """Base class of `T2VContraLoss` and `V2TContraLoss`."""

    uses_negatives = True
    inputs = POOLED
    text_to_video: bool
    """Whether captions search for clips. If False, clips search for captions."""

    def compute(
        self, *, pooled_video: Tensor, pooled_text: Tensor, **_: Any
    ) -> LossOutput:
        """Returns the term `clip_caption` and the metric `accuracy`.

        Args:
            pooled_video: float [B, D].
            pooled_text: float [B, D].
        """
        logits = dot_products(pooled_video, pooled_text)
        if self.text_to_video:
            logits = logits.T
        targets = torch.arange(len(logits), device=logits.device)
        return LossOutput(
            terms={"clip_caption": cross_entropy(logits, targets)},
            metrics={"accuracy": match_accuracy(logits)},
        )


@LOSSES.register
class T2VContraLoss(_OneDirectionLoss):
    """Text-to-video NCE: each caption must find its clip among all clips of the batch.

    Duplicates in a batch are not masked.
    """

    text_to_video = True


@LOSSES.register
class V2TContraLoss(_OneDirectionLoss):
    """Video-to-text NCE: each clip must find its caption among all captions of the batch.

    Duplicates in a batch are not masked.
    """

    text_to_video = False


@LOSSES.register
class MMContraLoss(SequenceContrastLoss):
    """The contrastive loss in both directions, of VideoCLIP or of Norton.

    If `sinkhorn_iterations` is null, the clip-caption term is VideoCLIP's plain NCE. Otherwise it
    is Norton's, with targets from optimal transport. The video-paragraph term is added unless
    `sequence_contrast` or its weight is null.

    `clip_temperature: paper` divides A by tau in the softmax of Norton's clip-caption term. The
    transport always uses A itself.

    Source: VideoCLIP (arXiv 2109.14084), Eq. 1-3; Norton (arXiv 2401.16702), Eq. 3-7.
    """

    class Config(SequenceConfig):
        """The keys of the loss."""

        beta: Share | None = None
        """Weight of the transport in the soft targets."""
        clip_temperature: Released = "released"
        """Temperature of the clip-caption term: `released` has none, `paper` divides by tau."""

    config: Config

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]  # read only
        """The pooled states. The video-paragraph term also reads the token states."""
        return STATES if self.has_sequence_term else POOLED

    @property
    def has_sequence_term(self) -> bool:  # type: ignore[override]  # read only
        """True if the video-paragraph term is part of the loss."""
        sequence = self.config.sequence_contrast
        return sequence is not None and sequence.sequence_contrast_weight is not None

    @property
    def uses_temperature(self) -> bool:  # type: ignore[override]  # read only
        """True if some term of the loss depends on tau."""
        has_transport = self.config.sinkhorn_iterations is not None
        in_clip_term = has_transport and self.config.clip_temperature == "paper"
        return self.has_sequence_term or in_clip_term

    def find_problems(self) -> list[str]:
        """Returns the mistakes in `config`, one sentence each."""
        problems = []
        if self.has_sequence_term:
            problems += super().find_problems()
        if self.config.sinkhorn_iterations is not None and self.config.beta is None:
            problems.append(
                "`loss.beta` must be a number from 0 to 1 if `loss.sinkhorn_iterations` is set, "
                "but is null."
            )
        return problems

    def compute(self, **batch: Any) -> LossOutput:
        """Returns the terms `clip_caption` and, if configured, `video_paragraph`.

        The metrics are `accuracy` and, if some term depends on tau, `temperature`.

        Args:
            batch: the tensors named in `STATES`. Without the video-paragraph term, the two pooled
                ones are enough.
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
        """Returns the clip-caption loss of A, a scalar."""
        config = self.config
        if config.sinkhorn_iterations is None:
            return symmetric_cross_entropy(logits)
        assert config.beta is not None
        plan = transport(logits.detach(), config.sinkhorn_iterations)
        if config.clip_temperature == "paper":
            logits = logits * scale
        video_to_text = rectified_cross_entropy(logits, plan, config.beta)
        text_to_video = rectified_cross_entropy(logits.T, plan.T, config.beta)
        return video_to_text + text_to_video
