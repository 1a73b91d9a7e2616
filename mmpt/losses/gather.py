"""The joined batch of all processes, with gradient, so that every process contrasts its clips with
everybody's.

Every process computes the loss of the joined batch, so all have the same value. Gradients reach
each process's own rows, times the number of processes that have rows: data-parallel training then
takes the mean over these, and what comes out is the gradient of the one loss on the joined batch.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mmpt.errors import UserError
from mmpt.utils.distributed import World


def join_batches(
    batch: dict[str, Any], names: tuple[str, ...], rows_together: int = 1, *, lends: bool = True
) -> dict[str, Any]:
    """Return `batch` with the tensors called `names` joined along their first axis, in order of
    rank.

    Every process must take part, at the same step. Rows may differ in number, all else may not.
    Waits for the device once, to learn the numbers of rows.

    Args:
        batch: what the loss is handed.
        names: the tensors to join, those that are there; float or bool, one row per clip.
        rows_together: how many neighbouring rows make a sequence; none may have rows of two
            processes.
        lends: False in a process whose batch is not to be trained on: it joins without rows.
    Raises:
        UserError: in every process, when some batch is not a multiple of `rows_together`.
    """
    world = World.current()
    joined = {name: batch[name] if lends else batch[name][:0] for name in names if name in batch}
    if world.size == 1 or not joined:
        return batch
    first = next(iter(joined.values()))
    num_rows = torch.tensor([len(first)], device=first.device)
    every = [torch.empty_like(num_rows) for _ in range(world.size)]
    dist.all_gather(every, num_rows)
    sizes = torch.cat(every).tolist()
    if any(size % rows_together for size in sizes):
        raise UserError(
            "with `loss.gather_negatives` the batch of every process must be a multiple of "
            f"`loss.sequence_contrast.threshold` ({rows_together}) clips, so that no sequence has "
            f"clips of two, but they have {sizes} clips; make `dataset.clip_per_video` a multiple "
            "of it."
        )
    gathered = dict(batch)
    for name, value in joined.items():
        gathered[name] = _Join.apply(value, sizes, world.rank)  # type: ignore[no-untyped-call]
    return gathered


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], rank: int) -> Tensor:
        begin = sum(sizes[:rank])
        ctx.own, ctx.num_lending = slice(begin, begin + sizes[rank]), sum(map(bool, sizes))
        sent = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
        padded = sent.new_zeros(max(sizes), *sent.shape[1:])
        padded[: len(sent)] = sent
        received = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(received, padded)
        parts = [part[:size] for part, size in zip(received, sizes, strict=True)]
        return torch.cat(parts).to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.num_lending * gradients[0][ctx.own], None, None
