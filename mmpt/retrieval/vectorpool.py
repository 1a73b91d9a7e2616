"""Collects one vector per video while every process embeds its share; afterwards rank 0 holds all of them.

Vectors are placed by the video's position in the training list, so that what comes out does not depend on the number
of processes, loader workers or the sampler's padding. Legend: N videos, n videos of one call, C clips, D hidden size.
"""

from __future__ import annotations

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.utils.distributed import World


def video_vectors(pooled_video_BD: torch.Tensor, pooled_text_BD: torch.Tensor, clips: int) -> torch.Tensor:
    """Return one vector per video: the mean over its clips of (video + text) / 2, not normalised.

    Args:
        pooled_video_BD: float [n*C, D], the clips of a video side by side.
        pooled_text_BD: float [n*C, D].
        clips: C.
    Returns:
        float32 [n, D].
    """
    assert pooled_video_BD.shape == pooled_text_BD.shape
    assert len(pooled_video_BD) % clips == 0
    both_BD = (pooled_video_BD.float() + pooled_text_BD.float()) / 2
    return both_BD.reshape(-1, clips, both_BD.shape[1]).mean(dim=1)


def _require_finite(vectors_ND: np.ndarray) -> None:
    """Raise a DataError that counts the rows with a NaN or an infinity."""
    with np.errstate(invalid="ignore"):  # infinities of both signs
        broken = np.flatnonzero(~np.isfinite(vectors_ND.sum(axis=1, dtype=np.float64)))
    if len(broken):
        raise DataError(
            f"{len(broken)} of {len(vectors_ND)} video vectors are not finite (first at list position {broken[0]}); "
            "look for broken features there, or for weights that have diverged."
        )


class VideoVectorPool:
    """Vectors of this process's videos by canonical position; the first one of a position counts."""

    def __init__(self, num_videos: int, hidden_size: int):
        """Take vectors of size `hidden_size` for positions 0..num_videos-1."""
        self.num_videos = num_videos
        self.hidden_size = hidden_size
        self._known_N = np.zeros(num_videos, dtype=bool)
        self._vectors_ND = np.zeros((num_videos, hidden_size), dtype=np.float32)  # takes memory as rows are written

    def __len__(self) -> int:
        return int(self._known_N.sum())

    def add(self, positions: torch.Tensor | np.ndarray, vectors: torch.Tensor | np.ndarray) -> None:
        """Keep the vectors whose position is new, in main memory.

        Args:
            positions: int64 [n], places in the training list.
            vectors: float [n, D], on any device; kept as float32.
        """
        positions = torch.as_tensor(positions).cpu().numpy().astype(np.int64)
        rows = torch.as_tensor(vectors).detach().float().cpu().numpy()
        assert rows.shape == (len(positions), self.hidden_size), f"{rows.shape} for {len(positions)} positions"
        assert len(positions) == 0 or 0 <= positions.min() <= positions.max() < self.num_videos
        first = np.sort(np.unique(positions, return_index=True)[1])
        first = first[~self._known_N[positions[first]]]
        self._known_N[positions[first]] = True
        self._vectors_ND[positions[first]] = rows[first]

    def gather(self, world: World) -> np.ndarray | None:
        """Return the vectors of all videos, in canonical order, in rank 0; None in the other processes.

        Where several processes hold a position (sampler padding), the lowest rank's vector counts. The matrix is the
        pool's own: rank 0 needs the memory of one matrix, the others that of their share (in pages of 2 MB where the
        system gives such), and each that of one block on its way.

        Returns:
            float32 [N, D] or None.
        Raises:
            DataError: a position that no process has (in every process), or in rank 0 a vector with a NaN or an
                infinity; with counts.
        """
        holder_N = world.lowest_holder(self._known_N)
        missing = np.flatnonzero(holder_N == world.size)
        if len(missing):
            raise DataError(
                f"{len(missing)} of {self.num_videos} videos have no vector (first at list position {missing[0]});"
                " every listed video must have features and captions."
            )
        whole_ND = world.gather_rows(self._vectors_ND, holder_N)
        if whole_ND is not None:
            _require_finite(whole_ND)
        return whole_ND


class DistributedVideoVectorPool(VideoVectorPool):
    """The same; YAMLs ask by this name for neighbours among the videos of all processes, which is now the rule."""
