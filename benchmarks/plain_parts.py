"""The plain side of training steps and of whole jobs: padded towers that attend eagerly, and the
dense loss.

A YAML names the classes as `benchmarks.plain_parts.PaddedTowers` and `.DenseLoss`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmpt.batch import ModelOutput
from mmpt.config import DatasetConfig, ModelConfig
from mmpt.losses.base import Loss, LossOutput
from mmpt.models.mmfusion import MMFusionSeparate

Batch = dict[str, Tensor]


class PaddedTowers(MMFusionSeparate):
    """Two towers that compute padding too, with attention written out."""

    @classmethod
    def from_config(
        cls, dataset: DatasetConfig, model: ModelConfig, **settings: Any
    ) -> MMFusionSeparate:
        """Build the model that a YAML describes, without packing."""
        model = model.model_copy(update={"packed": False})
        towers = super().from_config(dataset, model, **settings)
        attend_eagerly(towers)
        return towers


class DenseLoss(Loss):
    """Norton's two terms with the numbers of the recipe, dense."""

    contrasts = True
    inputs = tuple(ModelOutput.__annotations__)

    def compute(self, **batch: Any) -> LossOutput:
        """Return the terms `clip_caption` and `video_paragraph`."""
        return LossOutput(dense_terms(batch))


def attend_eagerly(towers: MMFusionSeparate) -> None:
    """Make both towers multiply queries and keys, as BERT did before fused attention."""
    for tower in (towers.video_encoder.bert, towers.text_encoder):
        tower.set_attn_implementation("eager")


def dense(batch: Batch) -> Tensor:
    """The loss's equations written out, with tensors over (caption, clip, token, token)."""
    return torch.stack(list(dense_terms(batch).values())).sum()


def dense_terms(batch: Batch) -> dict[str, Tensor]:
    """The weighted terms of `dense`."""
    video, text, num_clips = batch["pooled_video"], batch["pooled_text"], len(batch["pooled_video"])
    dots = video @ text.T
    uniform = dots.new_full((num_clips,), -math.log(2 * num_clips))
    plan = dense_plan(dots, uniform, uniform) * (2 * num_clips)
    targets = 0.3 * plan + 0.7 * torch.eye(num_clips)
    clip = (
        -(targets * dots.log_softmax(1)).sum(1).mean()
        - (targets.T * dots.T.log_softmax(1)).sum(1).mean()
    )

    fused = (0.5 * dense_min_max(unit(text) @ unit(video).T) + dense_token_similarity(batch)) / 1.5
    rho = fused.detach().diagonal().sort().values[int(0.3 * num_clips) - 1]
    blocks = fused.view(num_clips // 8, 8, num_clips // 8, 8).transpose(1, 2)
    padded = rho.expand(*blocks.shape[:2], 9, 9).clone()
    padded[..., :8, :8] = blocks.detach()
    mass = torch.full((9,), -math.log(16))
    mass[8] += math.log(8)
    plans = dense_plan(padded / 0.1, mass, mass)[..., :8, :8]
    plans = plans * (8 / plans.sum((2, 3), keepdim=True))
    logits = (plans * blocks).sum((2, 3)) / 0.07
    own = torch.arange(len(logits))
    paragraph = functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
    return {"clip_caption": clip, "video_paragraph": 0.1 * paragraph}


def dense_token_similarity(batch: Batch) -> Tensor:
    """(W1 + W2) / 2, each min-max normalised."""
    text_mask, video_mask = batch["text_mask_outputs"], batch["video_mask_outputs"]
    text, video = unit(batch["text_outputs"]), unit(batch["video_outputs"])
    cosines = torch.einsum("atd,bvd->abtv", text, video)
    real = text_mask[:, None, :, None] & video_mask[None, :, None, :]
    exp = cosines.masked_fill(~real, 0).exp()  # with alpha = 1
    t2v = (exp.sum(3) - (~video_mask).sum(1)[None, :, None]).log().sum(2)
    v2t = (exp.sum(2) - (~text_mask).sum(1)[:, None, None]).log().sum(2)
    t2v, v2t = t2v / text_mask.sum(1)[:, None], v2t / video_mask.sum(1)
    return (dense_min_max(t2v) + dense_min_max(v2t)) / 2


def unit(states: Tensor) -> Tensor:
    """Divide by the norm."""
    return states / states.norm(dim=-1, keepdim=True)


def dense_min_max(matrix: Tensor) -> Tensor:
    """Map to [0, 1]."""
    return (matrix - matrix.min()) / (matrix.max() - matrix.min())


@torch.no_grad()
def dense_plan(kernel: Tensor, log_mu: Tensor, log_nu: Tensor) -> Tensor:
    """Fifty log-domain Sinkhorn updates."""
    u, v = torch.zeros_like(kernel[..., 0]), torch.zeros_like(kernel[..., 0, :])
    for _ in range(50):
        u = log_mu - (kernel + v[..., None, :]).logsumexp(-1)
        v = log_nu - (kernel + u[..., None]).logsumexp(-2)
    plan = (kernel + u[..., None] + v[..., None, :]).exp()
    return plan if plan.dim() == 2 else plan * 16
