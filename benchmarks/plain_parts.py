"""The plain side of training steps and whole jobs: padded towers, eager attention, a dense loss.

A YAML selects them as `benchmarks.plain_parts.PaddedTowers` and `benchmarks.plain_parts.DenseLoss`.
The loss is written from the equations of the Norton paper, with the numbers of the recipe.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmpt.batch import ModelOutput
from mmpt.config import DatasetConfig, ModelConfig
from mmpt.losses import MMContraLoss
from mmpt.losses.base import Loss, LossOutput
from mmpt.models.mmfusion import MMFusionSeparate

Batch = dict[str, Tensor]


class PaddedTowers(MMFusionSeparate):
    """Two towers that also compute the padding, with eager attention."""

    @classmethod
    def from_config(
        cls, dataset: DatasetConfig, model: ModelConfig, **settings: Any
    ) -> MMFusionSeparate:
        """Builds the model that a YAML describes, without packing."""
        model = model.model_copy(update={"packed": False})
        towers = super().from_config(dataset, model, **settings)
        attend_eagerly(towers)
        return towers


class DenseLoss(Loss):
    """Both terms of Norton's loss, computed on dense tensors."""

    Config = MMContraLoss.Config
    uses_negatives = True
    inputs = tuple(ModelOutput.__annotations__)

    def compute(self, **batch: Any) -> LossOutput:
        """Returns the terms `clip_caption` and `video_paragraph`."""
        return LossOutput(dense_terms(batch))


def attend_eagerly(towers: MMFusionSeparate) -> None:
    """Makes both towers compute the attention matrix, as BERT did before fused attention."""
    for tower in (towers.video_encoder.bert, towers.text_encoder):
        tower.set_attn_implementation("eager")


def dense(batch: Batch) -> Tensor:
    """Returns Norton's loss, with tensors over (caption, clip, token, token)."""
    terms = dense_terms(batch)
    return torch.stack(list(terms.values())).sum()


def dense_terms(batch: Batch) -> dict[str, Tensor]:
    """Returns the weighted terms of `dense`."""
    return {
        "clip_caption": dense_clip_caption(batch["pooled_video"], batch["pooled_text"]),
        "video_paragraph": 0.1 * dense_video_paragraph(batch),
    }


def dense_clip_caption(video: Tensor, text: Tensor) -> Tensor:
    """Returns the contrast of clips and captions, with targets that optimal transport softens."""
    num_clips = len(video)
    dots = video @ text.T
    uniform = dots.new_full((num_clips,), -math.log(2 * num_clips))
    plan = dense_plan(dots, uniform, uniform) * (2 * num_clips)
    targets = 0.3 * plan + 0.7 * torch.eye(num_clips)
    to_text = soft_cross_entropy(dots, targets)
    to_video = soft_cross_entropy(dots.T, targets.T)
    return to_text + to_video


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross entropy of rows of logits with targets that are distributions."""
    log_shares = logits.log_softmax(1)
    return -(targets * log_shares).sum(1).mean()


def dense_video_paragraph(batch: Batch) -> Tensor:
    """Returns the contrast of sequences of 8 clips with sequences of 8 captions."""
    video = unit(batch["pooled_video"])
    text = unit(batch["pooled_text"])
    num_clips = len(video)
    num_sequences = num_clips // 8
    # The similarity of a caption and a clip is a weighted mean of pooled and token similarity.
    pooled = dense_min_max(text @ video.T)
    fused = (0.5 * pooled + dense_token_similarity(batch)) / 1.5
    blocks = fused.view(num_sequences, 8, num_sequences, 8).transpose(1, 2)
    # A prompt bucket, which has half of the mass, takes captions and clips without a counterpart.
    # Its similarity is the 30 % quantile of the similarities of true pairs.
    true_pairs = fused.detach().diagonal().sort().values
    rho = true_pairs[int(0.3 * num_clips) - 1]
    padded = rho.expand(num_sequences, num_sequences, 9, 9).clone()
    padded[..., :8, :8] = blocks.detach()
    mass = torch.full((9,), -math.log(16))
    mass[8] += math.log(8)
    with_bucket = dense_plan(padded / 0.1, mass, mass)
    plans = with_bucket[..., :8, :8]
    plans = plans * (8 / plans.sum((2, 3), keepdim=True))
    # The score of two sequences is their similarity under the plan.
    similarities = (plans * blocks).sum((2, 3))
    logits = similarities / 0.07
    own = torch.arange(num_sequences)
    to_paragraph = functional.cross_entropy(logits, own)
    to_video = functional.cross_entropy(logits.T, own)
    return to_paragraph + to_video


def dense_token_similarity(batch: Batch) -> Tensor:
    """Returns the token similarity of all captions and clips, [captions, clips].

    It is the mean of text-to-video and video-to-text, each normalised to [0, 1]. Each of them takes
    a soft maximum over the tokens of the other side, then a mean over its own tokens.
    """
    text_mask = batch["text_mask_outputs"]
    video_mask = batch["video_mask_outputs"]
    text = unit(batch["text_outputs"])
    video = unit(batch["video_outputs"])
    cosines = torch.einsum("atd,bvd->abtv", text, video)
    real = text_mask[:, None, :, None] & video_mask[None, :, None, :]
    # The soft maximum is a log-sum-exp with alpha = 1. A masked token contributes exp(0) = 1, which
    # is subtracted.
    exp = cosines.masked_fill(~real, 0).exp()
    num_masked_video = (~video_mask).sum(1)
    num_masked_text = (~text_mask).sum(1)
    text_maxima = (exp.sum(3) - num_masked_video[None, :, None]).log()
    video_maxima = (exp.sum(2) - num_masked_text[:, None, None]).log()
    num_text = text_mask.sum(1)
    num_video = video_mask.sum(1)
    t2v = text_maxima.sum(2) / num_text[:, None]
    v2t = video_maxima.sum(2) / num_video
    return (dense_min_max(t2v) + dense_min_max(v2t)) / 2


def unit(states: Tensor) -> Tensor:
    """Returns the states divided by their norms."""
    norms = states.norm(dim=-1, keepdim=True)
    return states / norms


def dense_min_max(matrix: Tensor) -> Tensor:
    """Returns the matrix scaled and shifted to [0, 1]."""
    low = matrix.min()
    high = matrix.max()
    return (matrix - low) / (high - low)


@torch.no_grad()
def dense_plan(kernel: Tensor, log_mu: Tensor, log_nu: Tensor) -> Tensor:
    """Returns transport plans after 50 Sinkhorn updates in the log domain.

    Args:
        kernel: similarities divided by epsilon, [..., M, N].
        log_mu: logarithms of the sums of the rows, [M].
        log_nu: logarithms of the sums of the columns, [N].
    """
    u = torch.zeros_like(kernel[..., 0])
    v = torch.zeros_like(kernel[..., 0, :])
    for _ in range(50):
        u = log_mu - (kernel + v[..., None, :]).logsumexp(-1)
        v = log_nu - (kernel + u[..., None]).logsumexp(-2)
    log_plan = kernel + u[..., None] + v[..., None, :]
    plan = log_plan.exp()
    if plan.dim() == 2:
        return plan
    # In blocks with a prompt bucket, a clip has mass 1 / 16.
    return plan * 16
