"""Metrics as pure functions of arrays; ties go by column, so a model whose scores are all equal is at chance.

Legend: N captions and N clips (pair n is caption n with clip n), k the cut-off of a recall. Shares are fractions 0..1.
"""

from __future__ import annotations

import numpy as np

RECALL_AT = (1, 5, 10)


def ranks_from_scores(scores_NN: np.ndarray) -> np.ndarray:
    """Return the rank of each row's own column: how many larger scores there are, plus equal ones further left.

    This is the place in a stable descending sort, and the release's wherever its order of ties is specified. All-equal
    scores give the ranks 0..N-1, which is chance. A score that is not a number counts as larger than any other.

    Args:
        scores_NN: float [N, N], rows are queries, columns are candidates, the right one on the diagonal.
    Returns:
        int64 [N], 0 is best.
    """
    assert scores_NN.shape == (len(scores_NN), len(scores_NN)), scores_NN.shape
    own_N1 = np.diagonal(scores_NN)[:, None]
    num_larger_N = (~(scores_NN <= own_N1)).sum(axis=1) - np.isnan(own_N1[:, 0])
    return num_larger_N + np.tril(scores_NN == own_N1, k=-1).sum(axis=1)


def recalls(scores_NN: np.ndarray) -> dict[str, float]:
    """Return R1, R5, R10: the share of rows whose own column is among the k best."""
    ranks_N = ranks_from_scores(scores_NN)
    return {f"R{k}": float((ranks_N < k).mean()) for k in RECALL_AT}


def retrieval_metrics(scores_NN: np.ndarray) -> dict[str, float]:
    """Return R1, R5, R10 (fractions) and MR (median rank, 1 is best); give `scores.T` for the other direction.

    Args:
        scores_NN: float [N, N], rows are queries, columns are candidates, the right one on the diagonal.
    """
    return {**recalls(scores_NN), "MR": float(np.median(ranks_from_scores(scores_NN))) + 1.0}


def chance_metrics(num_candidates: int) -> dict[str, float]:
    """Return the expectation of `retrieval_metrics` for independent random scores: R@k = k/N, median rank (N + 1)/2."""
    assert num_candidates > 0
    chance = {f"R{k}": min(k / num_candidates, 1.0) for k in RECALL_AT}
    return {**chance, "MR": (num_candidates + 1) / 2}


def accuracy(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Return the share of equal entries: of answers in multiple-choice QA, of seconds in action segmentation.

    Args:
        predictions, targets: integers of one shape, not empty.
    """
    assert predictions.shape == targets.shape, (predictions.shape, targets.shape)
    assert predictions.size, "no predictions"
    return float((predictions == targets).mean())
