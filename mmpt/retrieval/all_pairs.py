"""Exact nearest neighbours: every query is compared with every vector, block by block, in torch.

On a GPU, matrix products are so fast that an inverted file would not save time.

Legend: N vectors, n vectors of a block, m queries, r queries of a block, k neighbours, D hidden
size.
"""

import numpy as np
import torch

QUERY_ROWS = 1 << 12
"""Queries in a block."""
VECTOR_ROWS = 1 << 14
"""Vectors in a block. The products of two blocks take 256 MB."""


@torch.no_grad()
def search_all(
    queries_mD: np.ndarray, vectors_ND: np.ndarray, k: int, *, is_l2: bool, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k nearest vectors of every query.

    Args:
        queries_mD: float32.
        vectors_ND: float16 or float32.
        k: at most N.
        is_l2: compare by squared L2 distance, else by dot product.
        device: where products are computed.
    Returns:
        Positions, int64 [m, k], nearest first, and float32 [m, k]: squared L2 distances or dot
        products.
    """
    # The vectors are processed in blocks. For each query the k nearest vectors so far are kept,
    # and merged with the k nearest ones of the next block.
    #
    # Candidates are compared by a cost, which is lower for nearer vectors: -q.x for dot products,
    # and |x|^2 - 2 q.x for L2 distances. The latter is the squared distance without |q|^2, which
    # is the same for all vectors and is added at the end.
    queries = torch.from_numpy(queries_mD).to(device)
    factor = -2 if is_l2 else -1
    costs_mk = torch.full((len(queries), k), torch.inf, device=device)
    positions_mk = torch.full((len(queries), k), -1, device=device)
    for begin in range(0, len(vectors_ND), VECTOR_ROWS):
        block_nD = np.array(vectors_ND[begin : begin + VECTOR_ROWS])  # torch needs it writable
        block = torch.from_numpy(block_nD).to(device).float()
        squares_n = block.square().sum(dim=1) if is_l2 else block.new_zeros(len(block))
        for first in range(0, len(queries), QUERY_ROWS):
            rows = slice(first, first + QUERY_ROWS)
            # The nearest vectors of this block.
            costs_rn = torch.addmm(squares_n, queries[rows], block.T, alpha=factor)
            block_costs_rk, columns_rk = costs_rn.topk(min(k, len(block)), largest=False)
            # Merge them with the nearest ones of the previous blocks.
            merged_costs = torch.cat([costs_mk[rows], block_costs_rk], dim=1)
            merged_positions = torch.cat([positions_mk[rows], begin + columns_rk], dim=1)
            costs_mk[rows], nearest_rk = merged_costs.topk(k, largest=False)
            positions_mk[rows] = merged_positions.gather(1, nearest_rk)
    squares_m1 = queries.square().sum(dim=1, keepdim=True)
    scores_mk = costs_mk + squares_m1 if is_l2 else -costs_mk
    return positions_mk.cpu().numpy(), scores_mk.cpu().numpy()
