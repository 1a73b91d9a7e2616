"""The retrieval predictors embed every caption and every clip or window of a test set once.

Legend: B pairs of a batch, N pairs in all, S captions and W windows of a video, T text slots,
F video slots (seconds), D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from mmpt.evaluators.base import CLIPS, PREDICTORS, WHOLE_VIDEO, Part, Predictor, Prepared
from mmpt.evaluators.inference import finite
from mmpt.evaluators.outputs import BGRetrievalOutputs, ClipId, RetrievalOutputs


@PREDICTORS.register
class RetrievalPredictor(Predictor[RetrievalOutputs]):
    """Pooled vectors of pairs of a caption and a clip.

    The model's forward(caps=, cmasks=, vfeats=, vmasks=) returns pooled_text and pooled_video,
    float [B, D]. Batches hold caps int64 [B, T], cmasks bool [B, T], vfeats float16/32 [B, F, 512],
    vmasks bool [B, F] and video_id.
    """

    makes = RetrievalOutputs
    reads = CLIPS
    needs = dict.fromkeys(("pooled_text", "pooled_video"), "MMFusionSeparate")

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the vectors, captions and clip ids of each batch."""
        for batch, inputs in batches:
            output = self.run(model, inputs)
            yield {
                "captions": batch["caps"].int(),
                "pooled_text": finite(output["pooled_text"].float(), "captions").cpu(),
                "pooled_video": finite(output["pooled_video"].float(), "clips").cpu(),
                "clips": clip_ids(batch["video_id"]),
            }

    def collect(self, columns: dict[str, Any]) -> RetrievalOutputs:
        """Returns the outputs, in which equal captions have equal vectors."""
        captions_NT = columns.pop("captions")
        columns["pooled_text"] = of_first_equals(columns["pooled_text"], captions_NT)
        return RetrievalOutputs(**columns)


@PREDICTORS.register
class BGRetrievalPredictor(Predictor[BGRetrievalOutputs]):
    """Pooled vectors of all windows and all captions of whole videos, one video per batch.

    The model returns pooled_text [S, D] and pooled_video [W, D] for caps int64 [1, S, T], cmasks
    bool [1, S, T], vfeats float16/32 [1, W, F, 512] and vmasks bool [1, W, F].
    """

    makes = BGRetrievalOutputs
    reads = WHOLE_VIDEO
    needs = dict.fromkeys(("pooled_text", "pooled_video"), "MMFusionSeparateFullVideoBGRetrieval")
    counts = "videos embedded"

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the vectors of each video."""
        for batch, inputs in batches:
            output = self.run(model, inputs)
            text_SD = finite(output["pooled_text"].float(), "captions").cpu()
            video_WD = finite(output["pooled_video"].float(), "windows").cpu()
            yield {
                "pooled_text": text_SD,
                "pooled_video": video_WD,
                "num_captions": np.array([len(text_SD)]),
                "num_windows": np.array([len(video_WD)]),
                "video_ids": batch["video_id"],
            }


def of_first_equals(text_ND: np.ndarray, caps_NT: np.ndarray) -> np.ndarray:
    """Returns vectors in which equal captions have that of their first.

    The rounding of a vector depends on its batch, so equal captions could get different ranks.
    """
    _, first_U, place_N = np.unique(caps_NT, axis=0, return_index=True, return_inverse=True)
    return text_ND[first_U[place_N]]


def clip_ids(collated: Sequence[Any]) -> list[ClipId]:
    """Returns the ids of a batch from its collated `video_id`.

    Args:
        collated: a list of video ids, a list of (video, start, end), or those three transposed as
            torch's own collation leaves them: [ids, starts [B], ends [B]].
    """
    if len(collated) == 3 and isinstance(collated[1], torch.Tensor):
        videos, starts, ends = collated
        rows = zip(videos, starts.tolist(), ends.tolist(), strict=True)
        return [ClipId(str(video), start, end) for video, start, end in rows]
    return [ClipId(item) if isinstance(item, str) else ClipId(*item) for item in collated]
