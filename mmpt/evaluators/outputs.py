"""Outputs of the retrieval predictors: vectors. Scores are computed from them on demand.

Legend: N captions, M clips or windows (N clips, where clip n is that of caption n), n videos,
D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmpt.evaluators.base import Outputs

MOST_SAVED = 10_000
"""Captions or clips up to which a predictions file holds the whole score matrix (400 MB)."""


class ClipId(NamedTuple):
    """Which seconds of which video a clip is. Without times it is the whole video."""

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
        """Captions x clips, float32 [N, M]. For 100,000 pairs this is 40 GB: take rows instead."""
        return self.pooled_text @ self.pooled_video.T

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns pooled_text and pooled_video, and scores of at most `MOST_SAVED` rows."""
        arrays = {"pooled_text": self.pooled_text, "pooled_video": self.pooled_video}
        if max(map(len, arrays.values())) <= MOST_SAVED:
            arrays["scores"] = self.scores
        return arrays


@dataclass(frozen=True, kw_only=True)
class RetrievalOutputs(VectorOutputs):
    """Vectors of every caption and its clip."""

    clips: list[ClipId]  # [N]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns vectors, scores, video_id, start_s and end_s (NaN where there are no times)."""
        ids, starts_s, ends_s = zip(*self.clips, strict=True)
        times = {"start_s": np.array(starts_s, float), "end_s": np.array(ends_s, float)}
        return super().arrays() | {"video_id": np.array(ids)} | times


@dataclass(frozen=True, kw_only=True)
class BGRetrievalOutputs(VectorOutputs):
    """Vectors of every caption and every window, video by video."""

    num_captions: np.ndarray  # int64 [n]: per video
    num_windows: np.ndarray  # int64 [n]: per video
    video_ids: list[str]  # [n]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns vectors, scores, num_captions, num_windows and video_id."""
        counts = {"num_captions": self.num_captions, "num_windows": self.num_windows}
        return super().arrays() | counts | {"video_id": np.array(self.video_ids)}
