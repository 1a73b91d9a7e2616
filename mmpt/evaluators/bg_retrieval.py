"""Whole videos with their background: every window and every caption of a video embedded, once.

Legend: S captions and W windows of an item, T text slots, F video slots (seconds), D hidden size, n videos, N captions
and M windows of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from mmpt.evaluators.base import PREDICTORS, BatchLoader, Outputs, Predictor
from mmpt.evaluators.inference import check_finite, check_not_empty, evaluating, model_inputs
from mmpt.evaluators.outputs import MOST_SAVED
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class BGRetrievalOutputs(Outputs):
    """Pooled vectors of every caption and every window, video by video; a score is their dot product."""

    pooled_text: np.ndarray  # float32 [N, D]
    pooled_video: np.ndarray  # float32 [M, D]
    num_captions: np.ndarray  # int64 [n]: per video
    num_windows: np.ndarray  # int64 [n]: per video
    video_ids: list[str]  # [n]

    @property
    def scores(self) -> np.ndarray:
        """Captions x windows, float32 [N, M]."""
        return self.pooled_text @ self.pooled_video.T

    def arrays(self) -> dict[str, np.ndarray]:
        """Return scores (of at most `MOST_SAVED` captions and windows), vectors, counts and video ids."""
        scores = (
            {"scores": self.scores}
            if max(len(self.pooled_text), len(self.pooled_video)) <= MOST_SAVED
            else {}
        )
        return scores | {
            "pooled_text": self.pooled_text,
            "pooled_video": self.pooled_video,
            "num_captions": self.num_captions,
            "num_windows": self.num_windows,
            "video_id": np.array(self.video_ids),
        }


@PREDICTORS.register
class BGRetrievalPredictor(Predictor[BGRetrievalOutputs]):
    """Pooled vectors of all windows and all captions; the windows of a video are one batch of the video tower."""

    makes = BGRetrievalOutputs
    reads: ClassVar[Mapping[str, int]] = {"caps": 2, "cmasks": 2, "vfeats": 3, "vmasks": 2}

    def __call__(
        self, model: nn.Module, loader: BatchLoader, device: torch.device
    ) -> BGRetrievalOutputs:
        """Run `model` over `loader`; the model stays on `device`.

        Args:
            model: forward(caps=, cmasks=, vfeats=, vmasks=) returns pooled_text [S, D] and pooled_video [W, D].
            loader: batches of one video with caps int64 [1, S, T], cmasks bool [1, S, T], vfeats float16/32
                [1, W, F, 512], vmasks bool [1, W, F], and video_id, a list of one.
        Raises:
            DataError: the test set is empty.
            CheckpointError: the model gives vectors that are not finite.
        """
        text_parts: list[torch.Tensor] = []
        video_parts: list[torch.Tensor] = []
        video_ids: list[str] = []
        with evaluating(model.to(device)):
            for batch in progress(loader, len(loader), "videos embedded", logger):
                output = model(**model_inputs(batch, model, device))
                text_parts.append(output["pooled_text"].float().cpu())
                video_parts.append(output["pooled_video"].float().cpu())
                video_ids.extend(batch["video_id"])
        check_not_empty(video_ids)
        assert len(video_ids) == len(text_parts), (len(video_ids), len(text_parts))
        text_ND, video_MD = torch.cat(text_parts), torch.cat(video_parts)
        check_finite("captions", text_ND)
        check_finite("windows", video_MD)
        return BGRetrievalOutputs(
            pooled_text=text_ND.numpy(),
            pooled_video=video_MD.numpy(),
            num_captions=np.array([len(part) for part in text_parts]),
            num_windows=np.array([len(part) for part in video_parts]),
            video_ids=video_ids,
        )
