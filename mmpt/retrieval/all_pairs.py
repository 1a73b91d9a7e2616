"""Exact nearest neighbours: every query is compared with every vector, block by block, in torch.

On a GPU, matrix products are so fast that an inverted file would not pay.

Legend: N vectors, n vectors of a block, m queries, r queries of a block, k neighbours, D hidden
size.
"""

import numpy as np
import torch

QUERY_ROWS = 1 << 12
VECTOR_ROWS = 1 << 14
"""Queries and vectors that are multiplied at a time; their products take 256 MB."""


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
        positions int64 [m,k], nearest first; float32 [m,k]: squared L2 distances or dot products.
    """
    queries = torch.from_numpy(queries_mD).to(device)
    # A cost is |x|^2 - 2qx or -qx; lower is nearer. The k lowest so far, and their positions:
    costs_mk = torch.full((len(queries), k), torch.inf, device=device)
    places_mk = torch.full((len(queries), k), -1, device=device)
    for begin in range(0, len(vectors_ND), VECTOR_ROWS):
        block_nD = np.array(vectors_ND[begin : begin + VECTOR_ROWS])  # torch wants it writable
        block = torch.from_numpy(block_nD).to(device).float()
        offsets = block.square().sum(dim=1) if is_l2 else block.new_zeros(len(block))
        for first in range(0, len(queries), QUERY_ROWS):
            part = slice(first, first + QUERY_ROWS)
            costs_rn = torch.addmm(offsets, queries[part], block.T, alpha=-2 if is_l2 else -1)
            near_rk, columns_rk = costs_rn.topk(min(k, len(block)), largest=False)
            # Merge the nearest of this block with the nearest of the blocks before.
            both = torch.cat([costs_mk[part], near_rk], dim=1)
            both_places = torch.cat([places_mk[part], begin + columns_rk], dim=1)
            costs_mk[part], kept_rk = both.topk(k, largest=False)
            places_mk[part] = both_places.gather(1, kept_rk)
    squares_m1 = queries.square().sum(dim=1, keepdim=True)
    scores_mk = costs_mk + squares_m1 if is_l2 else -costs_mk
    return places_mk.cpu().numpy(), scores_mk.cpu().numpy()
