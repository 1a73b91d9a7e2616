"""Exact nearest neighbours: every query is compared with every vector, block by block, in torch.

On a GPU, matrix products are so fast that an inverted file would not save time.

Legend: N vectors, n vectors of a block, m queries, k neighbours, D hidden size.
"""

from typing import NamedTuple

import numpy as np
import torch


class Neighbours(NamedTuple):
    """The k nearest vectors of m queries."""

    positions_mk: np.ndarray
    """Positions of the vectors, int64, nearest first. -1 where fewer were found."""
    scores_mk: np.ndarray
    """Squared L2 distances or dot products, float32."""


@torch.no_grad()
def search_all(
    queries_mD: np.ndarray,
    vectors_ND: np.ndarray,
    k: int,
    *,
    is_l2: bool,
    device: torch.device,
    max_distances: int = 1 << 27,
    max_block: int = 1 << 14,
) -> Neighbours:
    """Returns the k nearest vectors of every query.

    Args:
        queries_mD: float32.
        vectors_ND: float16 or float32.
        k: at most N.
        is_l2: compare by squared L2 distance, else by dot product.
        device: where products are computed.
        max_distances: largest number of distances in memory (512 MB).
        max_block: largest number of vectors in a block.
    """
    # The vectors are processed in blocks. For each query the k nearest vectors so far are kept,
    # and merged with the k nearest ones of the next block.
    #
    # Candidates are compared by a cost, which is lower for nearer vectors: -q.x for dot products,
    # and |x|^2 - 2 q.x for L2 distances. The latter is the squared distance without |q|^2, which
    # is the same for all vectors and is added at the end.
    queries = torch.from_numpy(queries_mD).to(device)
    num_queries = len(queries)
    shape = (num_queries, k)
    costs_mk = queries.new_full(shape, torch.inf)
    positions_mk = torch.full_like(costs_mk, -1, dtype=torch.int64)
    factor = -2 if is_l2 else -1
    max_rows = max(1, max_distances // num_queries)
    num_rows = min(max_block, max_rows)
    for begin in range(0, len(vectors_ND), num_rows):
        end = begin + num_rows
        block_nD = np.array(vectors_ND[begin:end])  # torch needs it writable
        block = torch.from_numpy(block_nD).to(device).float()
        # Find the nearest vectors of this block.
        squares_n = block.new_zeros(len(block))
        if is_l2:
            squares_n = block.square().sum(dim=1)
        costs_mn = torch.addmm(squares_n, queries, block.T, alpha=factor)
        num_nearest = min(k, len(block))
        block_costs, columns = costs_mn.topk(num_nearest, largest=False)
        # Merge them with the nearest ones of the previous blocks.
        block_positions = begin + columns
        merged_costs = torch.cat([costs_mk, block_costs], dim=1)
        merged_positions = torch.cat([positions_mk, block_positions], dim=1)
        costs_mk, nearest = merged_costs.topk(k, largest=False)
        positions_mk = merged_positions.gather(1, nearest)
    if is_l2:
        squares_m1 = queries.square().sum(dim=1, keepdim=True)
        scores_mk = costs_mk + squares_m1
    else:
        scores_mk = -costs_mk
    return Neighbours(positions_mk.cpu().numpy(), scores_mk.cpu().numpy())
