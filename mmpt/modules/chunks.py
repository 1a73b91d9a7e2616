"""A network over the rows of a batch, some at a time: in training, what does not fit is computed again in backward.

Legend: N rows (clips), P positions, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch.utils.checkpoint import checkpoint


def run_chunks(
    run: Callable[..., torch.Tensor],
    size: int | None,
    lengths_N: torch.Tensor,
    *inputs_N: torch.Tensor,
    positions_kept: int = 0,
) -> torch.Tensor:
    """Return run(*inputs_N), float [N, P, D], computed for `size` rows of like length at a time.

    With gradient, what is held is the result, the activations of the last chunks, which backward needs first, as far as
    they may be kept, and those of one more chunk: backward computes the others again, with the random numbers that they
    had. Values and gradients are those of one pass; dropout draws in the order of the chunks.

    Args:
        run: treats every row by itself.
        size: None, or at least N: everything at once, nothing twice.
        lengths_N: int64, positions that a row costs; rows of like length are put together.
        inputs_N: tensors [N, ...].
        positions_kept: of how many positions activations may be kept; all of them at once if that is enough.
    """
    if size is None or len(lengths_N) <= size:
        return run(*inputs_N)
    costs_N, order_N = lengths_N.sort(stable=True)
    num_again = 0
    if torch.is_grad_enabled():
        costs = torch.stack([costs_n.sum() for costs_n in costs_N.split(size)]).tolist()
        num_again = sum(cost_from_here > positions_kept for cost_from_here in accumulate(reversed(costs)))
        if num_again == 0:
            return run(*inputs_N)

    def run_rows(rows_n: torch.Tensor, *inputs_N: torch.Tensor) -> torch.Tensor:
        return run(*(values.index_select(0, rows_n) for values in inputs_N))

    chunks = order_N.split(size)
    again = [checkpoint(run_rows, rows_n, *inputs_N, use_reentrant=False) for rows_n in chunks[:num_again]]
    joined_NPD = torch.cat([*again, *(run_rows(rows_n, *inputs_N) for rows_n in chunks[num_again:])])
    return joined_NPD.index_select(0, order_N.argsort())
