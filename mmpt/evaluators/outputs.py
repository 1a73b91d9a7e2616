"""What a retrieval predictor keeps of a test set: two vectors per pair; scores are made from them when asked for.

Legend: N captions and N clips (pair n is caption n with clip n), D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmpt.evaluators.base import Outputs

MOST_SAVED = 10_000
"""Pairs up to which a predictions file holds the whole score matrix (400 MB)."""


class ClipId(NamedTuple):
    """Which seconds of which video a clip is; without times it is the whole video."""

    video_id: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class RetrievalOutputs(Outputs):
    """Pooled vectors of every caption and every clip; a score is their dot product."""

    pooled_text: np.ndarray  # float32 [N, D]
    pooled_video: np.ndarray  # float32 [N, D]
    clips: list[ClipId]  # [N]

    @property
    def scores(self) -> np.ndarray:
        """Captions x clips, float32 [N, N]; 40 GB for 100,000 pairs, so take rows where there may be many."""
        return self.pooled_text @ self.pooled_video.T

    def arrays(self) -> dict[str, np.ndarray]:
        """Return scores (of at most `MOST_SAVED` pairs), pooled_text, pooled_video, video_id, start_s and end_s."""
        missing = float("nan")
        scores = {"scores": self.scores} if len(self.clips) <= MOST_SAVED else {}
        return scores | {
            "pooled_text": self.pooled_text,
            "pooled_video": self.pooled_video,
            "video_id": np.array([clip.video_id for clip in self.clips]),
            "start_s": np.array(
                [missing if clip.start_s is None else clip.start_s for clip in self.clips]
            ),
            "end_s": np.array(
                [missing if clip.end_s is None else clip.end_s for clip in self.clips]
            ),
        }
