"""The retrieval predictor embeds every caption and every clip of a test set once; vectors are kept as float32.

Legend: B pairs of a batch, N pairs in all, T text slots, F video slots (seconds), D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from mmpt.evaluators.base import PREDICTORS, BatchLoader, Predictor
from mmpt.evaluators.inference import check_finite, check_not_empty, evaluating, model_inputs
from mmpt.evaluators.outputs import ClipId, RetrievalOutputs
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)


@PREDICTORS.register
class RetrievalPredictor(Predictor[RetrievalOutputs]):
    """Pooled vectors of pairs of a caption and a clip."""

    makes = RetrievalOutputs
    reads: ClassVar[Mapping[str, int]] = {"caps": 1, "cmasks": 1, "vfeats": 2, "vmasks": 1}

    def __call__(
        self, model: nn.Module, loader: BatchLoader, device: torch.device
    ) -> RetrievalOutputs:
        """Run `model` over `loader`; the model stays on `device`.

        Args:
            model: forward(caps=, cmasks=, vfeats=, vmasks=) returns pooled_text and pooled_video, float [B, D].
            loader: batches with caps int64 [B, T], cmasks bool [B, T], vfeats float16/32 [B, F, 512],
                vmasks bool [B, F], and video_id.
        Raises:
            DataError: the test set is empty.
            CheckpointError: the model gives vectors that are not finite.
        """
        captions: list[torch.Tensor] = []
        text_parts: list[torch.Tensor] = []
        video_parts: list[torch.Tensor] = []
        clips: list[ClipId] = []
        with evaluating(model.to(device)):
            for batch in progress(loader, len(loader), "test batches embedded", logger):
                output = model(**model_inputs(batch, model, device))
                captions.append(batch["caps"].int())
                text_parts.append(output["pooled_text"].float().cpu())
                video_parts.append(output["pooled_video"].float().cpu())
                clips.extend(clip_ids(batch["video_id"]))
        check_not_empty(clips)
        text_ND, video_ND = (
            of_first_equals(torch.cat(text_parts), torch.cat(captions)),
            torch.cat(video_parts),
        )
        assert len(text_ND) == len(video_ND) == len(clips), (
            len(text_ND),
            len(video_ND),
            len(clips),
        )
        check_finite("captions", text_ND)
        check_finite("clips", video_ND)
        return RetrievalOutputs(
            pooled_text=text_ND.numpy(), pooled_video=video_ND.numpy(), clips=clips
        )


def of_first_equals(text_ND: torch.Tensor, caps_NT: torch.Tensor) -> torch.Tensor:
    """Return vectors in which equal captions have that of their first, since rounding depends on the batch."""
    _, first_U, place_N = np.unique(caps_NT.numpy(), axis=0, return_index=True, return_inverse=True)
    return text_ND[torch.from_numpy(first_U[place_N])]


def clip_ids(collated: Sequence[Any]) -> list[ClipId]:
    """Return the ids of a batch from its collated `video_id`.

    Args:
        collated: a list of video ids, a list of (video, start, end), or those three transposed as torch's own
            collation leaves them: [ids, starts [B], ends [B]].
    """
    if len(collated) == 3 and isinstance(collated[1], torch.Tensor):
        videos, starts, ends = collated
        rows = zip(videos, starts.tolist(), ends.tolist(), strict=True)
        return [ClipId(str(video), start, end) for video, start, end in rows]
    return [ClipId(item) if isinstance(item, str) else ClipId(*item) for item in collated]
