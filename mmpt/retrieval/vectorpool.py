"""Collects one vector per video: every process embeds its share, and rank 0 then gets all vectors.

Each process appends its vectors to a file, so that a pass that was killed continues. Vectors are
rounded to float16, for half the memory, disk space and traffic: 99.9 % of the 24 nearest neighbours
in the trained demo stay the same, and 99.9 % of 192 neighbours among planted topics. (bfloat16 has
shorter fractions and keeps 99.7 % and 99.3 %.)

Legend: N videos, n videos of one process or call, C clips, D hidden size.
"""

from pathlib import Path

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.registry import Registry
from mmpt.utils.distributed import World
from mmpt.utils.io import writing

LARGEST = float(np.finfo(np.float16).max)
KEY_DIGITS = 16
"""Digits of a pool's key in the names of its files."""


def video_vectors(
    pooled_video_BD: torch.Tensor, pooled_text_BD: torch.Tensor, clips: int
) -> torch.Tensor:
    """Returns one vector per video: the mean over its clips of (video + text) / 2, not normalised.

    Args:
        pooled_video_BD: float [n*C, D], the clips of a video next to each other.
        pooled_text_BD: float [n*C, D].
        clips: C.

    Returns:
        float32 [n, D].
    """
    assert pooled_video_BD.shape == pooled_text_BD.shape
    assert len(pooled_video_BD) % clips == 0
    both_BD = (pooled_video_BD.float() + pooled_text_BD.float()) / 2
    return both_BD.reshape(-1, clips, both_BD.shape[1]).mean(dim=1)


class VideoVectorPool:
    """The vectors of the videos that this process embeds, in a file.

    The file `vectors_<key>_r<rank>.f16` holds the rows one after another. A pool with the same key
    starts with the rows that are there.

    Args:
        positions_n: int64, positions of the videos in the training list, in the order in which they
            are embedded.
        hidden_size: D.
        folder: where the files are; made if it is missing.
        key: hexadecimal, identifies everything that decides the vectors and who embeds which.
        rank: of this process.
        per_piece: videos that are added at a time, fewer of them at the end. A kill may leave a
            part of them in the file, which is dropped.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(
        self,
        positions_n: np.ndarray,
        hidden_size: int,
        folder: str | Path,
        key: str,
        rank: int = 0,
        per_piece: int = 1,
    ):
        self.positions_n = positions_n
        self.hidden_size = hidden_size
        self._path = Path(folder) / f"vectors_{key[:KEY_DIGITS]}_r{rank}.f16"
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab")  # noqa: SIM115, closed by discard
            self._num_rows = self._file.tell() // (2 * hidden_size)
            if self._num_rows < len(positions_n):
                self._num_rows -= self._num_rows % per_piece
            self._file.truncate(self._num_rows * 2 * hidden_size)

    def __len__(self) -> int:
        return self._num_rows

    def add(self, vectors_nD: torch.Tensor) -> None:
        """Appends the vectors of the next videos.

        Args:
            vectors_nD: float, on any device.

        Raises:
            DataError: a vector with a NaN, an infinity or a value beyond the range of float16; the
                file cannot be written.
        """
        positions_n = self.positions_n[len(self) : len(self) + len(vectors_nD)]
        assert vectors_nD.shape == (len(positions_n), self.hidden_size)
        vectors_nD = vectors_nD.detach().float()
        # NaN is not <= anything.
        is_broken_n = ~(vectors_nD.abs().amax(dim=1) <= LARGEST).cpu().numpy()
        if is_broken_n.any():
            raise DataError(
                f"{is_broken_n.sum()} of {len(positions_n)} video vectors are not finite or beyond "
                f"{LARGEST:.0f} (first at list position {positions_n[is_broken_n].min()}); look "
                "for broken features there, or weights that have diverged."
            )
        with writing(self._path):
            self._file.write(vectors_nD.half().cpu().numpy().data)
            self._file.flush()
        self._num_rows += len(positions_n)

    def gather(self, world: World) -> np.ndarray | None:
        """Returns the vectors of all videos in rank 0, and None in the other processes.

        Returns:
            float16 [N, D], in the order of the training list.
        """
        assert len(self) == len(self.positions_n), "gather comes after the last video"
        rows_nD = np.zeros((0, self.hidden_size), np.float16)
        if len(self):  # an empty file cannot be mapped
            rows_nD = np.memmap(self._path, np.float16, "r").reshape(-1, self.hidden_size)
        return world.gather_rows(rows_nD, self.positions_n)

    def discard(self) -> None:
        """Removes the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class DistributedVideoVectorPool(VideoVectorPool):
    """The same. The release searched all videos with this class only; here both do."""


VECTOR_POOLS: Registry[VideoVectorPool] = Registry("vector pool", VideoVectorPool, "mmpt.retrieval")
VECTOR_POOLS.register(VideoVectorPool)
VECTOR_POOLS.register(DistributedVideoVectorPool)


def remove_other_vectors(folder: str | Path, key: str) -> None:
    """Removes the files of pools with other keys, which runs that were killed have left."""
    for path in Path(folder).glob("vectors_*_r*.f16"):
        if not path.name.startswith(f"vectors_{key[:KEY_DIGITS]}_"):
            path.unlink(missing_ok=True)
