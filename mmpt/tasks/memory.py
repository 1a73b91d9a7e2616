"""A run's `memory` to a plan: the process's share, what it holds already, and what a clip was measured to take."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from mmpt.config import RunConfig
from mmpt.errors import ConfigError
from mmpt.losses.tokenscore import CPU_TILE_BYTES, DEVICE_TILE_BYTES
from mmpt.models.memory import (
    LARGEST_CHUNK,
    LEAST_CHUNK,
    Batch,
    Chunks,
    ClipBytes,
    MemoryPlan,
    bytes_in_chunks,
    bytes_whole,
    choose_chunk,
    choose_forward,
    measure_clip,
    power_below,
)
from mmpt.models.mmfusion import CLIPS_PER_FORWARD, MMFusionSeparate
from mmpt.utils.distributed import World
from mmpt.utils.log import get_logger
from mmpt.utils.memory import memory_in_use, memory_limit, written

logger = get_logger(__name__)
UNMEASURED = MemoryPlan(clips_per_chunk=None, clips_kept=0, tile_bytes=None, clips_per_forward=CLIPS_PER_FORWARD)
USABLE_OF_GPU, USABLE_OF_CPU = 0.9, 0.5
"""Of the memory that is left. The rest is lost in gaps between tensors; a CPU's allocator keeps most of what is freed
(measured: up to 1.8 times what tensors hold)."""
CLIPS_PER_FORWARD_ON_CPU = 256
"""Measured: more are no faster."""
TILE_SHARE = 1 / 64
"""Most of the memory that a tile of the loss may take; on most machines the loss's own size is smaller."""
LEAST_TILE = 1 << 20
UPDATE_BYTES, MEANS_BYTES = 8, 8
"""Of every number that trains: its gradient and what an update needs; Adam's two means. (Copies in float32, where there
are any, are made before the first batch.)"""


def plan_memory(
    config: RunConfig, model: nn.Module, device: torch.device, num_clips: int | None, *, goes_on: bool = False
) -> MemoryPlan:
    """Measure the model, choose by `config.memory`, and log what was chosen; every process must ask.

    The process with the least memory left decides for all.

    Args:
        model: on `device`, in the precision it is going to run in; one that is not ours cannot be measured.
        num_clips: clips of a training batch; None: whole videos of any length.
        goes_on: training continues from a checkpoint, whose optimizer's state is in memory already.
    Raises:
        ConfigError: the memory is too small for any choice.
    """
    dataset = config.dataset
    if not isinstance(model, MMFusionSeparate) or dataset.max_len is None:
        return UNMEASURED
    assert dataset.max_video_len is not None, "checked by the model"
    clip = measure_clip(model, dataset.max_video_len, dataset.max_text_len)
    inputs = dataset.max_video_len * (4 * model.video_encoder.input_dim + 1) + 9 * dataset.max_text_len
    world = World.current()
    held = memory_in_use(device) + (0 if config.is_test else _bytes_to_update(model, goes_on))
    limit = memory_limit(config.memory, device, world.size)
    left, limit = min(world.gather_objects((limit - held, limit)))
    on_gpu = device.type == "cuda"
    usable = USABLE_OF_GPU if on_gpu else USABLE_OF_CPU
    room = usable * left
    forward = choose_forward(room, clip, inputs, CLIPS_PER_FORWARD if on_gpu else CLIPS_PER_FORWARD_ON_CPU)
    too_small = partial(_too_small, config, limit, limit - left)
    for_a_clip = 2 * (clip.forward + inputs) / usable, "one clip at a time"
    if config.is_test:
        if forward == 0:
            raise too_small(*for_a_clip)
        logger.info("memory %s: at most %s clips at once", _share(limit), f"{forward:,}")
        return MemoryPlan(clips_per_chunk=None, clips_kept=0, tile_bytes=None, clips_per_forward=forward)
    default = DEVICE_TILE_BYTES if on_gpu else CPU_TILE_BYTES
    tile = min(default, max(LEAST_TILE, power_below(room * TILE_SHARE)))
    gathered = world.size if config.loss and config.loss.gather_negatives else 1
    batch = Batch(num_clips, (num_clips or LARGEST_CHUNK) * gathered, inputs, tile)
    chunks = choose_chunk(room, clip, batch, config.model.checkpoint_activations)
    if chunks is None:
        least = min(LEAST_CHUNK, num_clips or 1)
        what = f"{num_clips or 1:,} clips, even with activations of {least} clips at a time"
        raise too_small(bytes_in_chunks(clip, batch, least) / usable, what)
    if forward == 0:
        raise too_small(*for_a_clip)
    _log(limit, room, clip, batch, chunks, forward)
    return MemoryPlan(*chunks, None if tile == default else tile, forward)


def _bytes_to_update(model: nn.Module, goes_on: bool) -> int:
    """What the first update adds to what training holds."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return trained * (UPDATE_BYTES + (0 if goes_on else MEANS_BYTES))


def _too_small(config: RunConfig, limit: int, held: int, needed: float, what: str) -> ConfigError:
    """The error that says how much memory would do, with a little to spare."""
    remedy, takers = "Raise it or free memory", "weights and the process itself"
    if not config.is_test:
        takers = "weights, what an update needs and the process itself"
        remedy += ", or make the batch smaller (`dataset.num_video_per_batch`, `dataset.clip_per_video`)"
    said = "is" if limit == config.memory else "what this process can have is"
    if isinstance(config.memory, float):
        said = f"as the share {config.memory:g} is"
    problem = (
        f"`memory` must be at least {written(1.05 * (held + needed))} for {what}, but {said} "
        f"{written(limit)}; {takers} take {written(held)} of it. {remedy}."
    )
    return ConfigError(str(config.path), [problem])


def _log(limit: int, room: float, clip: ClipBytes, batch: Batch, chunks: Chunks, forward: int) -> None:
    """One line: what the activations take, what becomes of them, and the other choices."""
    if batch.num_clips is None:
        said = f"whole videos of more than {chunks.clips} windows are recomputed in chunks" if chunks.clips else ""
    else:
        taken = bytes_whole(clip, batch)
        said = f"activations of {batch.num_clips:,} clips take at most {written(taken)}"
        if chunks.clips:
            beyond = f" beyond those of {chunks.kept:,}" if chunks.kept else ""
            said += f", so they are recomputed{beyond} in chunks of {chunks.clips:,}"
        elif taken > room:
            logger.warning("`model.checkpoint_activations: false` may take more than the %s left", written(room))
    said += "; " if said else ""
    memory, tile = _share(limit), written(batch.tile)
    logger.info("memory %s: %sloss tiles %s; embedding pass %s clips at once", memory, said, tile, f"{forward:,}")


def _share(limit: int) -> str:
    """The memory of one process, named as such where there are several."""
    size = World.current().size
    return written(limit) + (f" in each of {size} processes" if size > 1 else "")
