"""Collects one vector per video while every process embeds its share; afterwards each process holds all of them.

Vectors are placed by the video's position in the training list, so that what comes out does not depend on the number
of processes, loader workers or the sampler's padding. Legend: N videos, n videos of one call, C clips, D hidden size.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist

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


def require_finite(vectors_ND: np.ndarray) -> None:
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
        self._known = np.zeros(num_videos, dtype=bool)
        self._positions: list[np.ndarray] = []
        self._vectors: list[np.ndarray] = []

    def __len__(self) -> int:
        return int(self._known.sum())

    def add(self, positions: torch.Tensor | np.ndarray, vectors: torch.Tensor | np.ndarray) -> None:
        """Keep the vectors whose position is new.

        Args:
            positions: int64 [n], places in the training list.
            vectors: float [n, D]; kept as float32.
        """
        positions = torch.as_tensor(positions).cpu().numpy().astype(np.int64)
        rows = torch.as_tensor(vectors).detach().float().cpu().numpy()
        assert rows.shape == (len(positions), self.hidden_size), f"{rows.shape} for {len(positions)} positions"
        assert len(positions) == 0 or 0 <= positions.min() <= positions.max() < self.num_videos
        first = np.sort(np.unique(positions, return_index=True)[1])
        first = first[~self._known[positions[first]]]
        self._known[positions[first]] = True
        self._positions.append(positions[first])
        self._vectors.append(rows[first].copy())

    def gather(self, world: World) -> np.ndarray:
        """Return the vectors of all videos, in canonical order, in every process.

        Where several processes hold a position (sampler padding), the lowest rank's vector counts.

        Returns:
            float32 [N, D].
        Raises:
            DataError: a position that no process has, or a vector with a NaN or an infinity, with counts.
        """
        device = _collective_device(world)
        positions_n = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *self._positions])).to(device)
        rows_nD = torch.from_numpy(np.concatenate([np.empty((0, self.hidden_size), np.float32), *self._vectors]))
        held_nR = torch.zeros(len(positions_n), world.size, dtype=torch.int32, device=device)
        held_nR[:, world.rank] = 1
        held_NR = world.gather_rows(held_nR, positions_n, self.num_videos)
        self._require_complete(held_NR)
        mine_n = held_NR.argmax(dim=1)[positions_n] == world.rank
        whole_ND = world.gather_rows(rows_nD.to(device)[mine_n], positions_n[mine_n], self.num_videos).cpu().numpy()
        require_finite(whole_ND)
        return whole_ND

    def _require_complete(self, held_NR: torch.Tensor) -> None:
        missing = (held_NR.sum(dim=1) == 0).nonzero().flatten()
        if len(missing):
            raise DataError(
                f"{len(missing)} of {self.num_videos} videos have no vector (first at list position {int(missing[0])});"
                " every listed video must have features and captions."
            )


class DistributedVideoVectorPool(VideoVectorPool):
    """The same; YAMLs ask by this name for neighbours among the videos of all processes, which is now the rule."""


def _collective_device(world: World) -> torch.device:
    """Return where tensors must lie for the process group's collectives."""
    if world.size > 1 and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
