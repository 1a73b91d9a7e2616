"""The embedding pass: one vector for every training video, in pieces that fit into memory.

A piece is as many consecutive videos as `clips_per_forward` allows. Pieces are cut by position
alone, so `infer_scale`, the number of processes or loader workers, and interruptions do not change
which clips share a matrix product: with the same device and number of threads, the vectors are
equal to the bit. Another device, number of threads or `clips_per_forward`, and a device that runs
out of memory and computes a piece in parts, change the rounding of matrix products (1e-6), most of
which disappears in float16.
"""

import time
from typing import Any

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

PREFETCH = 2
"""Pieces that every loader worker prepares in advance, in shared memory."""
_MODEL_INPUTS = ("caps", "cmasks", "vfeats", "vmasks")


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


@torch.no_grad()
def embed(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Returns the vectors float32 [n, D] of the n videos of a collated batch, on the model's
    device.
    """
    clips = batch["caps"].shape[1]
    flat = merge_leading({key: batch[key] for key in _MODEL_INPUTS}, 2)
    device = device_of(model)
    output = model(**{key: value.to(device, non_blocking=True) for key, value in flat.items()})
    return video_vectors(output["pooled_video"].float(), output["pooled_text"].float(), clips)


def fill_pool(
    pool: VideoVectorPool,
    model: nn.Module,
    dataset: MMDataset,
    pieces: list[range],
    num_workers: int,
) -> tuple[int, float]:
    """Embeds the videos of this process that are not in its pool yet.

    Args:
        dataset: one video per item, C clips each; at the epoch that is to be embedded.
        pieces: all that this process embeds, as `deal_pieces` gives them.
        num_workers: loader processes.
    Returns:
        The number of videos embedded, and the seconds in which the towers waited for the loader.
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
        collate_fn=collate,
        num_workers=min(num_workers, len(pieces)),
        prefetch_factor=PREFETCH if num_workers and pieces else None,
        pin_memory=device_of(model).type == "cuda",
        generator=torch.Generator(),  # else the loader would advance the global one
    )
    waited_s, asked_at = 0.0, time.monotonic()
    for batch in progress(loader, num_videos, "videos embedded", logger, unit=per_piece):
        waited_s += time.monotonic() - asked_at
        pool.add(embed(model, batch))
        asked_at = time.monotonic()
    return num_videos, waited_s


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of the model's weights."""
    return next(model.parameters()).device
