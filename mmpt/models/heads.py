"""Two-tower models that read a whole video at once: full-video retrieval, step segmentation, step
localisation.

All have the towers and keys of `MMFusionSeparate`; only segmentation adds weights, a classifier. A
batch is one video, cut into windows, so every input has a leading axis of 1.
Legend: W windows, F seconds of a window, I width of the features (512), S captions (or steps), T
text slots, R real seconds of all windows, K classes, D hidden size.
"""

from typing import Any, TypedDict

import torch
from torch import Tensor

from mmpt.batch import ModelOutput
from mmpt.errors import ConfigError
from mmpt.models.mmfusion import MODELS, MMFusionSeparate, wrong_axes
from mmpt.models.video_bert import MMBertForTokenClassification


class Logits(TypedDict):
    """Output of the models that classify seconds."""

    logits: Tensor


@MODELS.register
class MMFusionSeparateFullVideoBGRetrieval(MMFusionSeparate):
    """Embeds all windows and all captions of one video (YouCook2 with background)."""

    gives = ("pooled_video", "pooled_text")

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **_: Any
    ) -> ModelOutput:
        """Returns pooled_video [W, D] and pooled_text [S, D].

        Args:
            caps: int64 [1, S, T].
            cmasks: bool [1, S, T].
            vfeats: float [1, W, F, I].
            vmasks: bool [1, W, F].
        """
        caps_ST, cmasks_ST, vfeats_WFI, vmasks_WF = _only_video(self, caps, cmasks, vfeats, vmasks)
        pooled_video = self.forward_video(
            vfeats_WFI, vmasks_WF, *window_text(caps_ST, len(vfeats_WFI))
        )[0]
        return {
            "pooled_video": pooled_video,
            "pooled_text": self.forward_text(caps_ST, cmasks_ST)[0],
        }


@MODELS.register
class MMFusionSeparateActionSegmentation(MMFusionSeparate):
    """Classifies every second of all windows (COIN); the text tower is there but takes no part."""

    video_encoder_cls = MMBertForTokenClassification
    video_encoder: MMBertForTokenClassification
    gives = tuple(Logits.__annotations__)

    def forward(  # type: ignore[override]  # logits, where the base class has pooled vectors
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **_: Any
    ) -> Logits:
        """Returns logits [W, F, K]; those of padded seconds mean nothing.

        Args:
            caps: int64 [1, W, any]; only [CLS] and [SEP] are read.
            cmasks: bool [1, W, any]; whether [CLS] and [SEP] may be attended to.
            vfeats: float [1, W, F, I].
            vmasks: bool [1, W, F].
        """
        caps_WT, cmasks_WT, vfeats_WFI, vmasks_WF = _only_video(self, caps, cmasks, vfeats, vmasks)
        states = self.forward_video(
            vfeats_WFI, vmasks_WF, caps_WT, cmasks_WT, output_hidden_states=True
        )
        return {"logits": self.video_encoder.classifier(states[:, 1:-1])}


@MODELS.register
class MMFusionSeparateActionLocalization(MMFusionSeparate):
    """Compares every real second of all windows with the text of every step (CrossTask)."""

    gives = tuple(Logits.__annotations__)

    def forward(  # type: ignore[override]  # logits, where the base class has pooled vectors
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **_: Any
    ) -> Logits:
        """Returns logits [R, S], window after window.

        Args:
            caps: int64 [1, S, T], one text per step.
            cmasks: bool [1, S, T].
            vfeats: float [1, W, F, I].
            vmasks: bool [1, W, F].
        """
        caps_ST, cmasks_ST, vfeats_WFI, vmasks_WF = _only_video(self, caps, cmasks, vfeats, vmasks)
        text = window_text(caps_ST, len(vfeats_WFI))
        states = self.forward_video(vfeats_WFI, vmasks_WF, *text, output_hidden_states=True)
        seconds_RD = states[:, 1:-1][vmasks_WF]
        return {"logits": seconds_RD @ self.forward_text(caps_ST, cmasks_ST)[0].T}


def window_text(caps_ST: Tensor, num_windows: int) -> tuple[Tensor, Tensor]:
    """Returns the text of windows that have none: caps int64 [W, 2] and cmasks bool [W, 2].

    It is [CLS] and [SEP], taken from the head of a caption; the [CLS] key is masked, as released,
    so that a window's vector differs a little from the one that retrieval of clips gives it.
    """
    caps_W2 = caps_ST[:1, :2].expand(num_windows, -1)
    return caps_W2, torch.tensor([False, True], device=caps_W2.device).expand(num_windows, -1)


def _only_video(model: MMFusionSeparate, *tensors: Tensor) -> list[Tensor]:
    """Returns the tensors of the only video of a batch; ConfigError for a batch of clips."""
    vfeats = tensors[2]
    if vfeats.ndim != 4:
        raise ConfigError("model", [wrong_axes(model, "whole videos, float [1, W, F, I]", vfeats)])
    assert all(len(tensor) == 1 for tensor in tensors), "a batch holds one video"
    return [tensor[0] for tensor in tensors]
