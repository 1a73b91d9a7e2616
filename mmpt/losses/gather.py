"""Gathers the batches of all processes, so that a clip has the clips of all of them as negatives.

Every process computes the loss of the gathered batch, so the value is the same in all of them. Each
process computes the gradient of its own rows only, multiplied by the number of processes that
contribute rows. Data-parallel training then averages over these processes, which gives the gradient
of the loss of the gathered batch.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mmpt.errors import UserError
from mmpt.utils.distributed import World


def gather_batches(
    batch: dict[str, Any],
    names: tuple[str, ...],
    sequence_length: int = 1,
    *,
    is_dummy_step: bool = False,
) -> dict[str, Any]:
    """Returns `batch` with the tensors called `names` of all processes, concatenated by rank.

    Every process must take part in the same step. The processes may have different numbers of rows.
    The other axes must be equal. Synchronises with the device once to read the numbers of rows.

    Args:
        batch: the keyword arguments of a loss.
        names: the float or bool tensors to gather, with one row per clip. Names that `batch` does
            not have are ignored.
        sequence_length: number of neighbouring rows that form a sequence. A sequence must not span
            two processes.
        is_dummy_step: True if this process must not contribute rows.
    Raises:
        UserError: in every process, if some batch is not a multiple of `sequence_length`.
    """
    world = World.current()
    present = [name for name in names if name in batch]
    if world.size == 1 or not present:
        return batch
    gathered = dict(batch)
    if is_dummy_step:
        for name in present:
            gathered[name] = batch[name][:0]

    # Learn the numbers of rows of all processes.
    first = gathered[present[0]]
    num_rows = torch.tensor([len(first)], device=first.device)
    gathered_sizes = num_rows.new_empty(world.size)
    dist.all_gather_into_tensor(gathered_sizes, num_rows)
    sizes = gathered_sizes.tolist()
    if any(size % sequence_length for size in sizes):
        raise UserError(
            "with `loss.gather_negatives` the batch of every process must be a multiple of "
            f"`loss.sequence_contrast.threshold` ({sequence_length}) clips, so that no sequence "
            f"has clips of two, but they have {sizes} clips; make `dataset.clip_per_video` a "
            "multiple of it."
        )
    for name in present:
        rows = gathered[name]
        gathered[name] = _AllGather.apply(rows, sizes, world.rank)  # type: ignore[no-untyped-call]
    return gathered


class _AllGather(torch.autograd.Function):
    """Concatenates the rows of all processes. Backward returns the gradient of the local rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], rank: int) -> Tensor:
        begin = sum(sizes[:rank])
        end = begin + sizes[rank]
        ctx.own = slice(begin, end)
        ctx.num_contributing = sum(size > 0 for size in sizes)

        # Processes exchange tensors of one size: each pads its rows to the largest number.
        dtype = torch.uint8 if rows.dtype == torch.bool else rows.dtype
        max_size = max(sizes)
        shape = rows.shape[1:]
        padded = rows.new_zeros(max_size, *shape, dtype=dtype)
        padded[: len(rows)] = rows
        received = padded.new_empty(len(sizes) * max_size, *shape)
        dist.all_gather_into_tensor(received, padded)

        parts = []
        for part, size in zip(received.split(max_size), sizes, strict=True):
            parts.append(part[:size])
        return torch.cat(parts).to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        own_gradient = ctx.num_contributing * gradient[ctx.own]
        return own_gradient, None, None
