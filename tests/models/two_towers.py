"""One pass of both towers, forward and backward, for tests that compare two ways to compute it."""

from __future__ import annotations

from torch import Tensor

from mmpt.models import MMFusionSeparate
from mmpt.models.mmfusion import ModelOutput


def outputs_and_gradients(
    model: MMFusionSeparate, clips: dict[str, Tensor]
) -> tuple[ModelOutput, dict[str, Tensor]]:
    """Return what the model gives, and the gradients by name of a number that every output takes
    part in.
    """
    out = model(**clips)
    model.zero_grad()
    text = (out["text_outputs"] * out["text_mask_outputs"][..., None]).pow(2).sum()
    video = (out["video_outputs"] * out["video_mask_outputs"][..., None]).pow(2).sum()
    ((out["pooled_video"] * out["pooled_text"]).sum() + text + video).backward()
    return out, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
