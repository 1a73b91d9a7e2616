"""The captions of a video as flat arrays, the form in which aligners use them.

Readers of packed captions return these. They also read like `Captions`, as a mapping of lists.

Legend: V videos, n captions, W slots of word pieces, P word pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np

from mmpt.batch import Captions


class CaptionRows(Mapping[str, list[Any]]):
    """Timed captions of one video. It reads like `Captions`."""

    def __init__(self, start: list[float], end: list[float], sizes: list[int], pieces: np.ndarray):
        """Keeps the arguments.

        Args:
            start, end: seconds, n each.
            sizes: the number of word pieces of each caption, n.
            pieces: the word pieces of all captions, one caption after another, int [P].
        """
        assert len(start) == len(end) == len(sizes)
        self.start = start
        self.end = end
        self.sizes = sizes
        self.pieces = pieces

    @classmethod
    def of(cls, captions: Captions | CaptionRows) -> CaptionRows:
        """Returns `captions` in this form."""
        if isinstance(captions, CaptionRows):
            return captions
        cap = captions["cap"]
        pieces = np.fromiter(chain.from_iterable(cap), dtype=np.int64)
        return cls(captions["start"], captions["end"], [len(ids) for ids in cap], pieces)

    @classmethod
    def unpack(
        cls, counts: Sequence[int], times_n2: np.ndarray, ids_nW: np.ndarray
    ) -> list[CaptionRows]:
        """Returns the captions of V videos from their packed rows, without the padding.

        Args:
            counts: the number of captions of each video, V; they add up to n.
            times_n2: float, start and end in seconds.
            ids_nW: int, word pieces padded with -1.
        """
        starts, ends = times_n2.T.tolist()
        real_nW = ids_nW >= 0
        sizes = real_nW.sum(axis=1).tolist()
        pieces_P = ids_nW[real_nW]
        bounds = [0, *accumulate(sizes)]  # caption i is pieces_P[bounds[i] : bounds[i + 1]]
        videos = []
        begin = 0
        for end in accumulate(counts):
            pieces = pieces_P[bounds[begin] : bounds[end]]
            videos.append(cls(starts[begin:end], ends[begin:end], sizes[begin:end], pieces))
            begin = end
        return videos

    def __getitem__(self, name: str) -> list[Any]:
        if name != "cap":
            return {"start": self.start, "end": self.end}[name]
        pieces = self.pieces.tolist()
        bounds = [0, *accumulate(self.sizes)]
        return [pieces[begin:end] for begin, end in pairwise(bounds)]

    def __iter__(self) -> Iterator[str]:
        return iter(("start", "end", "cap"))

    def __len__(self) -> int:
        return 3
