"""Retrieval: predictors that embed every caption and every clip or window of a test set once.

Scores are computed from the vectors on demand.

Legend: B pairs of a batch, N captions, M clips or windows (M = N if clip n belongs to caption n),
n videos, S captions and W windows of a video, T text slots, F video slots (seconds), D hidden
size.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from mmpt.evaluators import CLIPS, PREDICTORS, WHOLE_VIDEO, Outputs, Predictor
from mmpt.evaluators.base import Part, Prepared, require_finite

POOLED = ("pooled_text", "pooled_video")
MAX_SAVED = 10_000
"""Captions or clips up to which a predictions file holds the whole score matrix (400 MB)."""


class ClipId(NamedTuple):
    """A video and the seconds of a clip. Without times, the clip is the whole video."""

    video_id: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class VectorOutputs(Outputs):
    """Pooled vectors of captions and of clips or windows. A score is a dot product."""

    pooled_text: np.ndarray  # float32 [N, D]
    pooled_video: np.ndarray  # float32 [M, D]

    @property
    def scores(self) -> np.ndarray:
        """Scores of captions and clips, float32 [N, M].

        With 100,000 captions and clips this takes 40 GB. Compute some rows at a time instead.
        """
        return self.pooled_text @ self.pooled_video.T

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns pooled_text and pooled_video, and scores of at most `MAX_SAVED` rows."""
        arrays = {"pooled_text": self.pooled_text, "pooled_video": self.pooled_video}
        num_rows = max(len(self.pooled_text), len(self.pooled_video))
        if num_rows <= MAX_SAVED:
            arrays["scores"] = self.scores
        return arrays


@dataclass(frozen=True, kw_only=True)
class RetrievalOutputs(VectorOutputs):
    """The vectors of every caption and its clip."""

    clips: list[ClipId]  # [N]

    @property
    def video_ids(self) -> list[str]:
        """The video of each clip, [N]."""
        return [clip.video_id for clip in self.clips]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns vectors, scores, video_id, start_s and end_s (NaN where there are no times)."""
        ids, starts_s, ends_s = zip(*self.clips, strict=True)
        return {
            **super().arrays(),
            "video_id": np.array(ids),
            "start_s": np.array(starts_s, float),
            "end_s": np.array(ends_s, float),
        }


@dataclass(frozen=True, kw_only=True)
class BGRetrievalOutputs(VectorOutputs):
    """The vectors of every caption and every window, video by video."""

    num_captions: np.ndarray  # int64 [n]: per video
    num_windows: np.ndarray  # int64 [n]: per video
    video_ids: list[str]  # [n]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns vectors, scores, num_captions, num_windows and video_id."""
        return {
            **super().arrays(),
            "num_captions": self.num_captions,
            "num_windows": self.num_windows,
            "video_id": np.array(self.video_ids),
        }


@PREDICTORS.register
class RetrievalPredictor(Predictor[RetrievalOutputs]):
    """A predictor of the pooled vectors of captions and their clips.

    The model's forward(caps=, cmasks=, vfeats=, vmasks=) returns pooled_text and pooled_video,
    float [B, D]. Batches hold caps int64 [B, T], cmasks bool [B, T], vfeats float16/32 [B, F,
    width], vmasks bool [B, F] and video_id.
    """

    output_type = RetrievalOutputs
    reads = CLIPS
    model_outputs = dict.fromkeys(POOLED, "MMFusionSeparate")

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the vectors, captions and clip ids of each batch."""
        for batch, inputs in batches:
            output = self.run(model, inputs)
            yield {
                **pooled_vectors(output),
                "captions": batch["caps"].int(),
                "clips": clip_ids(batch["video_id"]),
            }

    def collect(self, columns: dict[str, Any]) -> RetrievalOutputs:
        """Returns the outputs. Equal captions share the vector of the first of them.

        Otherwise they could get different ranks, because rounding depends on the batch.
        """
        captions_NT = columns.pop("captions")
        _, first_U, place_N = np.unique(
            captions_NT, axis=0, return_index=True, return_inverse=True
        )
        text_ND = columns.pop("pooled_text")
        return RetrievalOutputs(**columns, pooled_text=text_ND[first_U[place_N]])


@PREDICTORS.register
class BGRetrievalPredictor(Predictor[BGRetrievalOutputs]):
    """A predictor of the pooled vectors of all windows and captions of a video, one per batch.

    The model returns pooled_text [S, D] and pooled_video [W, D] for caps int64 [1, S, T], cmasks
    bool [1, S, T], vfeats float16/32 [1, W, F, width] and vmasks bool [1, W, F].
    """

    output_type = BGRetrievalOutputs
    reads = WHOLE_VIDEO
    model_outputs = dict.fromkeys(POOLED, "MMFusionSeparateFullVideoBGRetrieval")

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the vectors of each video."""
        for batch, inputs in batches:
            output = self.run(model, inputs)
            vectors = pooled_vectors(output)
            yield {
                **vectors,
                "num_captions": np.array([len(vectors["pooled_text"])]),
                "num_windows": np.array([len(vectors["pooled_video"])]),
                "video_ids": batch["video_id"],
            }


def pooled_vectors(output: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Returns pooled_text and pooled_video of a model's output as float32 on the CPU."""
    vectors = {}
    for name in POOLED:
        rows_ND = require_finite(output[name].float(), f"rows of `{name}`")
        vectors[name] = rows_ND.cpu()
    return vectors


def clip_ids(collated: Sequence[Any]) -> list[ClipId]:
    """Returns the ids of a batch from its collated `video_id`.

    Args:
        collated: a list of B video ids. If the keys of a batch are (video, start, end), torch's
            collation makes it a list of three: ids, starts [B] and ends [B].
    """
    if isinstance(collated[-1], torch.Tensor):
        videos, starts, ends = collated
        clips = zip(videos, starts.tolist(), ends.tolist(), strict=True)
        return [ClipId(*clip) for clip in clips]
    return [ClipId(video) for video in collated]
