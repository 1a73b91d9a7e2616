"""The embedding pass: one vector for every training video, in pieces that fit into memory.

A piece is as many consecutive videos as `clips_per_forward` allows. Pieces are cut by position
alone, so `infer_scale`, the number of processes or loader workers, and interruptions do not change
which clips share a matrix product: with the same device and number of threads, the vectors are
equal to the bit. Another device, number of threads or `clips_per_forward`, and a device that runs
out of memory and computes a piece in parts, change the rounding of matrix products (1e-6), most of
which disappears in float16.
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

from mmpt.config import RunConfig
from mmpt.datasets import MMDataset, collate
from mmpt.models.mmfusion import CLIPS_PER_FORWARD
from mmpt.modules import ChunkSize
from mmpt.modules.chunks import ALL
from mmpt.retrieval import VideoVectorPool, video_vectors
from mmpt.tasks.task import merge_leading
from mmpt.utils.distributed import World
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

KEEP_EVERY_S = 5.0
"""Seconds between two writes to disk: the work that is lost when the process is killed."""
PREFETCH = 2
"""Pieces that every loader worker prepares in advance, in shared memory."""
_MODEL_INPUTS = ("caps", "cmasks", "vfeats", "vmasks")


class Embedded(NamedTuple):
    """The work of one process in a pass."""

    num_videos: int
    waited_s: float
    """Seconds in which the towers waited for the loader."""


@dataclass(frozen=True)
class EmbeddingPass:
    """Turns the videos of a data set into vectors.

    Args:
        dataset: one video per item, C clips each; at the epoch that is to be embedded.
        clips_per_video: C.
        clips_per_forward: most clips of a piece, the same in every process.
        videos_per_chunk: consecutive videos that are given to one process at a time.
        num_workers: loader processes.
    """

    dataset: MMDataset
    clips_per_video: int
    clips_per_forward: int
    videos_per_chunk: int
    num_workers: int

    @property
    def videos_per_piece(self) -> int:
        """Videos whose clips fit into one forward pass; at least one."""
        return max(1, self.clips_per_forward // self.clips_per_video)

    def vector_size(self, model: nn.Module) -> int:
        """Returns D, from the vector of the first video."""
        return self._vectors(model, collate([self.dataset[0]])).shape[1]

    def pieces(self, world: World) -> list[range]:
        """Returns the positions of the pieces that this process embeds."""
        return deal_pieces(len(self.dataset), self.videos_per_piece, self.videos_per_chunk, world)

    def fill(self, pool: VideoVectorPool, model: nn.Module, world: World) -> Embedded:
        """Embeds the videos of this process that are not in the pool yet.

        The pool is written to disk every `KEEP_EVERY_S` seconds and when the pass ends, also when
        it is interrupted.
        """
        if len(pool):
            total = len(pool.positions_n)
            logger.info("%d of %d videos are embedded already; continuing", len(pool), total)
        num_done = -(-len(pool) // self.videos_per_piece)  # only the last piece may be smaller
        pieces = self.pieces(world)[num_done:]
        num_videos = sum(map(len, pieces))
        kept_at = time.monotonic()
        waiting = _Waiting(self._loader(pieces, device_of(model)))
        batches = progress(
            waiting, num_videos, "videos embedded", logger, unit=self.videos_per_piece
        )
        try:
            for batch in batches:
                pool.add(self._vectors(model, batch))
                if time.monotonic() - kept_at > KEEP_EVERY_S:
                    pool.keep()
                    kept_at = time.monotonic()
        finally:
            pool.keep()
        return Embedded(num_videos, waiting.waited_s)

    def pace(self, done: Embedded, took_s: float, world: World) -> str:
        """Returns a text about the speed of this process, which took `took_s` seconds."""
        rate = done.num_videos / took_s
        each = " in each process" if world.size > 1 else ""
        speed = f"{rate:,.0f} videos/s, {rate * self.clips_per_video:,.0f} clips/s{each}"
        return f"{speed}, {done.waited_s / took_s:.0%} waiting for data"

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
        """Returns the vectors float32 [n, D] of the videos of a batch, on the model's device."""
        device = device_of(model)
        flat = merge_leading({key: batch[key] for key in _MODEL_INPUTS}, 2)
        inputs = {key: value.to(device, non_blocking=True) for key, value in flat.items()}
        output = model(**inputs)
        video_BD, text_BD = output["pooled_video"].float(), output["pooled_text"].float()
        return video_vectors(video_BD, text_BD, self.clips_per_video)


def clips_per_forward(config: RunConfig, device: torch.device) -> int:
    """Returns the most clips of a piece: the key of this name, or what `auto` begins with."""
    # Not the model's own size, which may have halved: all processes must cut the same pieces.
    chunk = ChunkSize("clips_per_forward", config.clips_per_forward, CLIPS_PER_FORWARD)
    return chunk.size(ALL, device)


def deal_pieces(num_videos: int, per_piece: int, per_chunk: int, world: World) -> list[range]:
    """Returns the positions of the pieces that this process embeds.

    Piece p has the positions from p * `per_piece` on. Pieces are dealt in turns: each process gets
    the pieces of `per_chunk` videos at a time, or fewer where another would get none otherwise.
    """
    num_pieces = -(-num_videos // per_piece)
    fair = -(-num_pieces // world.size)
    at_a_time = max(1, min(per_chunk // per_piece, fair))
    starts = np.arange(num_pieces)
    mine = starts[starts // at_a_time % world.size == world.rank] * per_piece
    return [range(start, min(start + per_piece, num_videos)) for start in mine.tolist()]


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of the model's weights."""
    return next(model.parameters()).device


class _Waiting:
    """An iterable that measures how long its consumer waits for items."""

    def __init__(self, items: Iterable[Any]):
        self._items = items
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Any]:
        begin = time.perf_counter()
        for item in self._items:
            self.waited_s += time.perf_counter() - begin
            yield item
            begin = time.perf_counter()
