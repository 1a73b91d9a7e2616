"""The embedding pass: one vector for every training video, in pieces that fit into memory and survive a kill.

A piece is so many consecutive videos as go through the towers at once, cut by position alone. What shares a matrix
product therefore depends on neither `infer_scale`, the number of processes or workers, nor on an interruption, and on
one kind of device with equally many threads the vectors are the same to the bit. Another number of clips at once, of
threads or another device changes the rounding of matrix products (1e-6), most of which float16 then hides.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmpt.datasets import MMDataset, collate
from mmpt.retrieval import VideoVectorPool, video_vectors
from mmpt.tasks.task import merge_leading
from mmpt.utils.distributed import World
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

KEEP_EVERY_S = 5.0
"""Seconds of work that a kill may cost."""
PREFETCH = 2
"""Pieces that every loader worker holds ready, in shared memory."""
_MODEL_INPUTS = ("caps", "cmasks", "vfeats", "vmasks")


class Embedded(NamedTuple):
    """What a process has done in a pass."""

    num_videos: int
    waited_s: float
    """Seconds in which the towers waited for the loader."""


@dataclass(frozen=True)
class EmbeddingPass:
    """How the videos of a data set become vectors.

    Args:
        dataset: one video per item, C clips each; at the epoch that is to be embedded.
        clips_per_video: C.
        clips_per_forward: most clips that go through the towers at once, the same in every process.
        videos_per_chunk: consecutive videos that one process takes at a time, as far as there are enough of them.
        num_workers: loader processes.
    """

    dataset: MMDataset
    clips_per_video: int
    clips_per_forward: int
    videos_per_chunk: int
    num_workers: int

    @property
    def videos_per_piece(self) -> int:
        """Videos whose clips fit into one forward pass; one at least."""
        return max(1, self.clips_per_forward // self.clips_per_video)

    def vector_size(self, model: nn.Module) -> int:
        """Return D, which the first video's vector tells."""
        return self._vectors(model, collate([self.dataset[0]])).shape[1]

    def fill(self, pool: VideoVectorPool, model: nn.Module, world: World) -> Embedded:
        """Embed this process's share of the videos that no process has.

        What is done is kept in the pool's bank, if it has one, every `KEEP_EVERY_S` and at the end, also when the pass
        is interrupted.
        """
        pieces = self._pieces(pool, world)
        mine = sum(map(len, pieces))
        kept_at = time.monotonic()
        batches = _Waiting(self._loader(pieces, device_of(model)))
        try:
            for batch in progress(batches, mine, "videos embedded", logger, unit=self.videos_per_piece):
                pool.add(batch["idx"], self._vectors(model, batch))
                if time.monotonic() - kept_at > KEEP_EVERY_S:
                    pool.keep()
                    kept_at = time.monotonic()
        finally:
            pool.keep()
        return Embedded(mine, batches.waited_s)

    def pace(self, done: Embedded, took_s: float, world: World) -> str:
        """Say how fast this process has embedded its share in `took_s` seconds."""
        rate = done.num_videos / took_s
        each = " in each process" if world.size > 1 else ""
        speed = f"{rate:,.0f} videos/s, {rate * self.clips_per_video:,.0f} clips/s{each}"
        return f"{speed}, {done.waited_s / took_s:.0%} waiting for data"

    def _pieces(self, pool: VideoVectorPool, world: World) -> list[range]:
        """Return the pieces that this process embeds, of the videos that no process has yet."""
        missing_N = world.lowest_holder(pool.known_N) == world.size
        if missing_N.any() and not missing_N.all():
            done = len(missing_N) - int(missing_N.sum())
            logger.info("%d of %d videos are embedded already: the pass goes on", done, len(missing_N))
        return deal_pieces(missing_N, self.videos_per_piece, self.videos_per_chunk, world)

    def _loader(self, pieces: list[range], device: torch.device) -> DataLoader[Any]:
        return DataLoader(
            self.dataset,
            batch_sampler=[list(piece) for piece in pieces],
            collate_fn=collate,
            num_workers=min(self.num_workers, len(pieces)),
            prefetch_factor=PREFETCH if self.num_workers and pieces else None,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else the loader would advance the global one
        )

    @torch.no_grad()
    def _vectors(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """Return the vectors float32 [n, D] of the videos of a batch, on the model's device."""
        device = device_of(model)
        flat = merge_leading({key: batch[key] for key in _MODEL_INPUTS}, 2)
        towers = []
        for begin in range(0, len(flat["caps"]), self.clips_per_forward):  # once, unless C is larger than that
            end = begin + self.clips_per_forward
            output = model(**{key: value[begin:end].to(device, non_blocking=True) for key, value in flat.items()})
            towers.append(torch.stack([output["pooled_video"], output["pooled_text"]]).float())
        video_BD, text_BD = torch.cat(towers, dim=1)
        return video_vectors(video_BD, text_BD, self.clips_per_video)


def deal_pieces(missing_N: np.ndarray, per_piece: int, per_chunk: int, world: World) -> list[range]:
    """Return the positions of the pieces that this process embeds.

    Piece p is positions p * per_piece and following, whatever is missing. Pieces with something missing are dealt in
    turns, as many at a time as `per_chunk` videos make, or fewer where a process would get none otherwise.

    Args:
        missing_N: bool, the videos to embed.
    """
    starts = np.unique(np.flatnonzero(missing_N) // per_piece) * per_piece
    fair = -(-len(starts) // world.size)
    at_a_time = max(1, min(per_chunk // per_piece, fair))
    mine = np.arange(len(starts)) // at_a_time % world.size == world.rank
    return [range(start, min(start + per_piece, len(missing_N))) for start in starts[mine].tolist()]


def device_of(model: nn.Module) -> torch.device:
    """Return where the model's weights are."""
    return next(model.parameters()).device


class _Waiting:
    """Items as they come, with the seconds that were spent waiting for them."""

    def __init__(self, items: Iterable[Any]):
        self._items = items
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Any]:
        begin = time.perf_counter()
        for item in self._items:
            self.waited_s += time.perf_counter() - begin
            yield item
            begin = time.perf_counter()
