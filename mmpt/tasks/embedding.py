"""The embedding pass: computes one vector for every training video, in pieces that fit into memory.

A piece is as many consecutive videos as `clips_per_forward` allows. Only positions decide where
pieces begin. So `infer_scale`, the number of processes or loader workers, and interruptions do not
change which clips share a matrix product: with the same device and number of threads, the vectors
are equal to the bit.

Another device, number of threads or `clips_per_forward` changes the rounding of matrix products by
about 1e-6. The same happens if a device runs out of memory and computes a piece in parts. Most of
the difference disappears in float16.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmpt.datasets import MMDataset
from mmpt.retrieval import VideoVectorPool, video_vectors
from mmpt.utils.distributed import World
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

PREFETCH = 2
"""Pieces that every loader worker prepares in advance, in shared memory."""
_MODEL_INPUTS = ("caps", "cmasks", "vfeats", "vmasks")


def deal_pieces(num_videos: int, per_piece: int, per_chunk: int, world: World) -> list[range]:
    """Returns the positions of the pieces that this process embeds.

    Piece p begins at position p * `per_piece`. The processes take turns: each gets `per_chunk`
    videos at a time. It gets fewer if another process would otherwise get none.
    """
    num_pieces = -(-num_videos // per_piece)
    fair_share = -(-num_pieces // world.size)
    at_a_time = max(1, min(per_chunk // per_piece, fair_share))
    starts = np.arange(num_pieces)
    mine = starts[starts // at_a_time % world.size == world.rank] * per_piece
    return [range(start, min(start + per_piece, num_videos)) for start in mine.tolist()]


@torch.no_grad()
def embed(model: nn.Module, batch: dict[str, Any], clips_per_video: int) -> torch.Tensor:
    """Returns the vectors float32 [n, D] of the n videos of a batch, on the model's device.

    Args:
        batch: n * `clips_per_video` clips. The clips of a video are next to each other.
    """
    device = device_of(model)
    inputs = {key: batch[key].to(device, non_blocking=True) for key in _MODEL_INPUTS}
    output = model(**inputs)
    pooled_video, pooled_text = output["pooled_video"].float(), output["pooled_text"].float()
    return video_vectors(pooled_video, pooled_text, clips_per_video)


def fill_pool(
    pool: VideoVectorPool,
    model: nn.Module,
    dataset: MMDataset,
    pieces: list[range],
    *,
    clips_per_video: int,
    num_workers: int,
) -> tuple[int, float]:
    """Embeds the videos of this process that are not in its pool yet.

    Args:
        dataset: one video per item, with C clips. Its epoch must be set.
        pieces: positions of the videos that this process embeds, from `deal_pieces`.
        clips_per_video: C.
        num_workers: number of loader processes.
    Returns:
        The number of videos embedded, and the seconds that the towers waited for the loader.
    """
    if len(pool):
        total = len(pool.positions_n)
        logger.info("%d of %d videos are embedded already; continuing", len(pool), total)
    per_piece = max(map(len, pieces), default=1)
    pieces = pieces[-(-len(pool) // per_piece) :]  # only the last piece may be smaller
    num_videos = sum(map(len, pieces))
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=[list(piece) for piece in pieces],
        collate_fn=dataset.collate,
        num_workers=min(num_workers, len(pieces)),
        prefetch_factor=PREFETCH if num_workers and pieces else None,
        pin_memory=device_of(model).type == "cuda",
        generator=torch.Generator(),  # otherwise the loader would advance the global one
    )
    waited_s, asked_at = 0.0, time.monotonic()
    for batch in progress(loader, num_videos, "videos embedded", logger, unit=per_piece):
        waited_s += time.monotonic() - asked_at
        pool.add(embed(model, batch, clips_per_video))
        asked_at = time.monotonic()
    return num_videos, waited_s


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of the model's weights."""
    return next(model.parameters()).device
