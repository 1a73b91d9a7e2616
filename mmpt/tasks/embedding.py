"""The embedding pass: computes one vector for every training video, in pieces that fit into memory.

A piece is as many consecutive videos as `clips_per_forward` allows. Only positions decide where
pieces begin. So `infer_scale`, the number of processes or loader workers, and interruptions do not
change which clips share a matrix product. With the same device and number of threads, the vectors
are bitwise identical.

Another device, number of threads or `clips_per_forward` changes the rounding of matrix products by
about 1e-6. The same happens if a device runs out of memory and computes a piece in parts. Most of
the difference disappears in float16.
"""

import math
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from mmpt.config import DatasetConfig
from mmpt.datasets import MMDataset
from mmpt.processors.base import Processor
from mmpt.retrieval import VideoVectorPool, video_vectors
from mmpt.utils.distributed import World
from mmpt.utils.log import ON_SCREEN, get_logger, progress

logger = get_logger(__name__)

PREFETCH = 2
"""Pieces that every loader worker prepares in advance, in shared memory."""
_MODEL_INPUTS = ("caps", "cmasks", "vfeats", "vmasks")
VECTOR_KEYS = (
    "feature_fps",
    "max_video_len",
    "max_len",
    "clip_per_video",
    "num_video_per_batch",
    "sampled_min_len",
    "sampled_max_len",
    "sort_clips",
    "bert_name",
    "vfeat_dir",
    "tfeat_dir",
    "video_processor",
    "text_processor",
)
"""Keys under `dataset` on which the vectors or a plan depend."""


def assign_pieces(
    num_videos: int, per_piece: int, per_chunk: int, world: World
) -> list[range]:
    """Returns the positions of the pieces that this process embeds.

    Piece p begins at position p * `per_piece`. The processes take turns: each gets `per_chunk`
    videos at a time, but at most its fair share of the pieces, rounded up.
    """
    num_pieces = math.ceil(num_videos / per_piece)
    fair_share = math.ceil(num_pieces / world.size)
    wanted = per_chunk // per_piece
    pieces_per_turn = max(1, min(wanted, fair_share))
    pieces = []
    for number in range(num_pieces):
        turn = number // pieces_per_turn
        if turn % world.size == world.rank:
            start = number * per_piece
            end = min(start + per_piece, num_videos)
            pieces.append(range(start, end))
    return pieces


@torch.no_grad()
def embed(
    model: nn.Module, batch: dict[str, Any], clips_per_video: int
) -> torch.Tensor:
    """Returns the vectors float32 [n, D] of the n videos of a batch, on the model's device.

    Args:
        batch: n * `clips_per_video` clips. The clips of a video are next to each other.
    """
    device = device_of(model)
    inputs = {}
    for key in _MODEL_INPUTS:
        inputs[key] = batch[key].to(device, non_blocking=True)
    output = model(**inputs)
    return video_vectors(output["pooled_video"], output["pooled_text"], clips_per_video)


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
        pieces: positions of the videos that this process embeds, from `assign_pieces`.
        clips_per_video: C.
        num_workers: number of loader processes.
    Returns:
        The number of videos embedded, and the seconds that the towers waited for the loader.
    """
    per_piece = max(map(len, pieces), default=1)
    num_known = len(pool)
    if num_known:
        total = len(pool.positions_n)
        logger.info(
            "%d of %d videos are embedded already; continuing",
            num_known,
            total,
            extra=ON_SCREEN,
        )
    # Only the last piece may be smaller.
    num_pieces_known = math.ceil(num_known / per_piece)
    pieces = pieces[num_pieces_known:]
    num_videos = sum(map(len, pieces))
    num_workers = min(num_workers, len(pieces))
    device = device_of(model)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=[list(piece) for piece in pieces],
        collate_fn=dataset.collate,
        num_workers=num_workers,
        prefetch_factor=PREFETCH if num_workers else None,
        pin_memory=device.type == "cuda",
        # By default, the loader draws its base seed from torch's global generator, and so changes
        # its state.
        generator=torch.Generator(),
    )
    waited_s = 0.0
    asked_at = time.monotonic()
    for batch in progress(
        loader, num_videos, "videos embedded", logger, unit=per_piece
    ):
        waited_s += time.monotonic() - asked_at
        vectors_nD = embed(model, batch, clips_per_video)
        pool.add(vectors_nD)
        asked_at = time.monotonic()
    return num_videos, waited_s


def vector_size(model: nn.Module, dataset: MMDataset, clips_per_video: int) -> int:
    """Returns the size D of a vector, from the vector of the first video."""
    batch = dataset.collate([dataset[0]])
    vectors_1D = embed(model, batch, clips_per_video)
    return vectors_1D.shape[1]


def speed_of_pass(
    num_videos: int, clips_per_video: int, seconds: float, world: World
) -> str:
    """Returns the speed of an embedding pass as text, for the log."""
    videos_per_s = num_videos / seconds
    clips_per_s = videos_per_s * clips_per_video
    speed = f"{videos_per_s:,.0f} videos/s, {clips_per_s:,.0f} clips/s"
    if world.size > 1:
        speed += " in each process"
    return speed


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of the model's weights."""
    parameter = next(model.parameters())
    return parameter.device


def vector_settings(
    config: DatasetConfig, readers: Iterable[Processor]
) -> dict[str, Any]:
    """Returns the settings on which the vectors depend.

    Args:
        readers: the processors that read the videos. The keys that only they have are included.
    """
    keys = set(VECTOR_KEYS)
    for reader in readers:
        keys |= reader.Config.model_fields.keys() - DatasetConfig.model_fields.keys()
    return {key: getattr(config, key) for key in keys}
