"""Metrics as pure functions of arrays.

Equal scores are ranked by column, so a model whose scores are all equal is at chance.

Legend: N captions and N clips (pair n is caption n with clip n), R some of their rows, C columns, D
hidden size, k the cut-off of a recall. Shares are fractions 0..1.
"""

import numpy as np

RECALL_AT = (1, 5, 10)
SCORES_PER_CHUNK = 1 << 24  # 64 MB of float32


def ranks_from_scores(scores_RN: np.ndarray, first: int = 0) -> np.ndarray:
    """Returns the rank of each row's own column.

    The rank is the number of larger scores plus the number of equal ones further left. This is the
    place in a stable descending sort. The release has the same ranks wherever its order of equal
    scores is specified. If all scores are equal, the ranks are 0..N-1, which is chance. A NaN
    counts as larger than any other score.

    Args:
        scores_RN: float [R, N]. Rows are queries and columns are candidates. The right candidate of
            row r is `first` + r.
        first: number of the query in the first row, if the matrix is computed some rows at a time.
    Returns:
        int64 [R], 0 is best.
    """
    num_rows, num_columns = scores_RN.shape
    assert first + num_rows <= num_columns, (scores_RN.shape, first)
    own_R = np.diagonal(scores_RN, offset=first)
    own_R1 = own_R[:, None]
    # All scores that are not at most the own one count as larger, which includes NaN. If the own
    # score is NaN, it would count itself.
    num_at_most_R = (scores_RN <= own_R1).sum(axis=1)
    num_larger_R = num_columns - num_at_most_R - np.isnan(own_R)
    # Row r's own column is `first` + r. The triangle keeps the columns left of it.
    equal_RN = scores_RN == own_R1
    equal_and_left_RN = np.tril(equal_RN, k=first - 1)
    num_equal_and_left_R = equal_and_left_RN.sum(axis=1)
    return num_larger_R + num_equal_and_left_R


def ranks_from_vectors(
    queries_ND: np.ndarray,
    candidates_ND: np.ndarray,
    scores_per_chunk: int = SCORES_PER_CHUNK,
) -> np.ndarray:
    """Returns the ranks of the scores `queries @ candidates.T`, computed some rows at a time.

    Equal candidates are scored once, because a matrix product may round them differently in
    different columns.

    Args:
        queries_ND: float32 [N, D]. The right candidate of query n is candidate n.
        candidates_ND: float32 [N, D].
        scores_per_chunk: largest number of scores to compute at a time, but at least one row.
    Returns:
        int64 [N], 0 is best.
    """
    rows_per_chunk = max(1, scores_per_chunk // len(candidates_ND))
    unique_UD, place_N = np.unique(candidates_ND, axis=0, return_inverse=True)
    chunks = []
    for first in range(0, len(queries_ND), rows_per_chunk):
        queries_RD = queries_ND[first : first + rows_per_chunk]
        scores_RU = queries_RD @ unique_UD.T
        scores_RN = scores_RU[:, place_N]
        chunks.append(ranks_from_scores(scores_RN, first))
    return np.concatenate(chunks)


def recalls(ranks_N: np.ndarray) -> dict[str, float]:
    """Returns R1, R5, R10: the share of ranks (0 is best) among the k best."""
    shares: dict[str, float] = {}
    for k in RECALL_AT:
        is_found_N = ranks_N < k
        shares[f"R{k}"] = float(is_found_N.mean())
    return shares


def retrieval_metrics(ranks_N: np.ndarray) -> dict[str, float]:
    """Returns R1, R5, R10 (fractions) and MR (median rank, 1 is best) of ranks (0 is best)."""
    median_rank = float(np.median(ranks_N)) + 1.0
    return recalls(ranks_N) | {"MR": median_rank}


def chance_metrics(num_candidates: int) -> dict[str, float]:
    """Returns the expectation of `retrieval_metrics` for independent random scores.

    It is R@k = k/N, and the median rank (N + 1)/2.
    """
    chance = {}
    for k in RECALL_AT:
        chance[f"R{k}"] = min(k / num_candidates, 1.0)
    chance["MR"] = (num_candidates + 1) / 2
    return chance


def shared_credit(scores_RC: np.ndarray, targets_R: np.ndarray) -> np.ndarray:
    """Returns the credit of each row, float64 [R].

    The credit is 1/k if the target is one of the k columns with the best score, and else 0. This is
    the expectation of a random choice among the best columns, so a model that scores all columns
    alike is at chance. Without equal scores the credit is 1 if the maximum is right, as in the
    release.

    Args:
        scores_RC: float, the answers of a question, or the classes of a second.
        targets_R: int, the right columns. A target that is not among the C columns is never right.
    """
    num_rows, num_columns = scores_RC.shape
    highest_R1 = scores_RC.max(axis=1, keepdims=True)
    best_RC = scores_RC == highest_R1
    # An unknown target looks at column 0, and `known_R` removes its credit.
    known_R = (targets_R >= 0) & (targets_R < num_columns)
    column_R = np.where(known_R, targets_R, 0)
    row_R = np.arange(num_rows)
    right_R = best_RC[row_R, column_R] & known_R
    num_best_R = best_RC.sum(axis=1)
    return right_R / num_best_R
