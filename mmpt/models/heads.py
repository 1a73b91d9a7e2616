"""Two-tower models that read a whole video at once.

They are for full-video retrieval, step segmentation and step localisation. All have the towers and
state-dict keys of `MMFusionSeparate`. Only segmentation has further weights, a classifier.
A batch is one video, cut into windows, so every input has a leading axis of 1.

Legend: W windows, F feature rows of a window, I their width, S captions (or steps), T text slots,
R real rows of all windows, K classes, D hidden size.
"""

from typing import Any, TypedDict

import torch
from torch import Tensor

from mmpt.batch import ModelOutput
from mmpt.errors import ConfigError
from mmpt.models.bert import MMBertForTokenClassification
from mmpt.models.mmfusion import MODELS, MMFusionSeparate, wrong_axes


class Logits(TypedDict):
    """Output of the models that classify feature rows (seconds, with one row a second)."""

    logits: Tensor


@MODELS.register
class MMFusionSeparateFullVideoBGRetrieval(MMFusionSeparate):
    """A model that embeds all windows and all captions of a video (YouCook2 with background)."""

    outputs = ("pooled_video", "pooled_text")

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
        caps_ST, cmasks_ST, vfeats_WFI, vmasks_WF = _only_video(
            self, caps, cmasks, vfeats, vmasks
        )
        caps_W2, cmasks_W2 = window_text(caps_ST, len(vfeats_WFI))
        pooled_video, _, _ = self.forward_video(
            vfeats_WFI, vmasks_WF, caps_W2, cmasks_W2
        )
        pooled_text, _, _ = self.forward_text(caps_ST, cmasks_ST)
        return {"pooled_video": pooled_video, "pooled_text": pooled_text}


@MODELS.register
class MMFusionSeparateActionSegmentation(MMFusionSeparate):
    """A model that classifies every feature row of all windows (COIN).

    It has a text tower, because its checkpoints have one, but does not use it.
    """

    video_encoder_cls = MMBertForTokenClassification
    video_encoder: MMBertForTokenClassification
    outputs = tuple(Logits.__annotations__)

    def forward(  # type: ignore[override]  # logits, where the base class has pooled vectors
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **_: Any
    ) -> Logits:
        """Returns logits [W, F, K]. The values of padded rows are arbitrary.

        Args:
            caps: int64 [1, W, T]. Only the first two ids, [CLS] and [SEP], are read.
            cmasks: bool [1, W, T]. The first two are True if [CLS] and [SEP] may be attended to.
            vfeats: float [1, W, F, I].
            vmasks: bool [1, W, F].
        """
        caps_WT, cmasks_WT, vfeats_WFI, vmasks_WF = _only_video(
            self, caps, cmasks, vfeats, vmasks
        )
        states = self.forward_video(
            vfeats_WFI, vmasks_WF, caps_WT, cmasks_WT, output_hidden_states=True
        )
        rows_WFD = states[:, 1:-1]  # between [CLS] and [SEP]
        return {"logits": self.video_encoder.classifier(rows_WFD)}


@MODELS.register
class MMFusionSeparateActionLocalization(MMFusionSeparate):
    """A model that compares every row of a video with the text of every step (CrossTask)."""

    outputs = tuple(Logits.__annotations__)

    def forward(  # type: ignore[override]  # logits, where the base class has pooled vectors
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **_: Any
    ) -> Logits:
        """Returns logits [R, S]: the dot products of rows, window after window, with steps.

        Args:
            caps: int64 [1, S, T], one text per step.
            cmasks: bool [1, S, T].
            vfeats: float [1, W, F, I].
            vmasks: bool [1, W, F].
        """
        caps_ST, cmasks_ST, vfeats_WFI, vmasks_WF = _only_video(
            self, caps, cmasks, vfeats, vmasks
        )
        caps_W2, cmasks_W2 = window_text(caps_ST, len(vfeats_WFI))
        states = self.forward_video(
            vfeats_WFI, vmasks_WF, caps_W2, cmasks_W2, output_hidden_states=True
        )
        rows_WFD = states[:, 1:-1]  # between [CLS] and [SEP]
        rows_RD = rows_WFD[vmasks_WF]
        steps_SD, _, _ = self.forward_text(caps_ST, cmasks_ST)
        return {"logits": rows_RD @ steps_SD.T}


def window_text(caps_ST: Tensor, num_windows: int) -> tuple[Tensor, Tensor]:
    """Returns the text of windows without captions: caps int64 [W, 2] and cmasks bool [W, 2].

    The text is [CLS] and [SEP], copied from the beginning of a caption. As in the released code,
    [CLS] is masked. A window's vector therefore differs a little from the vector that the same
    rows have in the retrieval of clips.
    """
    caps_12 = caps_ST[:1, :2]
    cmasks_2 = torch.tensor([False, True], device=caps_ST.device)
    return caps_12.expand(num_windows, -1), cmasks_2.expand(num_windows, -1)


def _only_video(model: MMFusionSeparate, *tensors: Tensor) -> list[Tensor]:
    """Returns the tensors of a batch's only video, without the leading axis.

    Raises:
        ConfigError: the batch holds clips instead of a whole video.
    """
    vfeats = tensors[2]
    if vfeats.ndim != 4:
        problem = wrong_axes(model, "whole videos, float [1, W, F, I]", vfeats)
        raise ConfigError("model", [problem])
    assert all(len(tensor) == 1 for tensor in tensors), "a batch holds one video"
    return [tensor[0] for tensor in tensors]
