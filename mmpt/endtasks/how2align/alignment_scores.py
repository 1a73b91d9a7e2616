"""Temporal alignment metrics as pure functions of arrays: where each sentence fits best, and
ROC-AUC by ranks.

Legend: n sentences of a video, L seconds, P positives, M negatives.
"""

import numpy as np

NEVER_COVERED = -60000.0
"""Released value of seconds that were not compared with a sentence; below every cosine."""


Placement = tuple[np.ndarray, np.ndarray]
"""Placement of n sentences, float64 [n] each: hits (1 if the best second is a true one, else 0; the
share of true ones among equally good seconds), and the similarity at the best second.
"""


def true_seconds(spans_n2: np.ndarray, num_seconds: int) -> np.ndarray:
    """Returns bool [n, L]: floor(start) <= second <= ceil(end), which is what counts as a hit in
    the release.
    """
    second_L = np.arange(num_seconds)
    start_n1, end_n1 = np.hsplit(spans_n2, 2)
    has_begun_nL = second_L >= np.floor(start_n1)
    is_not_over_nL = second_L <= np.ceil(end_n1)
    return has_begun_nL & is_not_over_nL


def place_released(similarity_nL: np.ndarray, spans_n2: np.ndarray) -> Placement:
    """Places sentences as published: a similarity of exactly 0 counts as never covered, and the
    first maximum wins.

    A sentence that was not compared with any window is therefore placed at second 0, and is right
    if it is shown there.

    Args:
        similarity_nL: float [n, L], 0 where nothing was compared.
        spans_n2: float [n, 2], true start and end in seconds.
    """
    num_rows, num_seconds = similarity_nL.shape
    filled_nL = np.where(similarity_nL == 0, NEVER_COVERED, similarity_nL)
    row_n = np.arange(num_rows)
    best_n = filled_nL.argmax(axis=1)
    true_nL = true_seconds(spans_n2, num_seconds)
    hits_n = true_nL[row_n, best_n]
    peaks_n = filled_nL[row_n, best_n]
    return hits_n.astype(np.float64), peaks_n.astype(np.float64)


def place_corrected(
    similarity_nL: np.ndarray, covered_nL: np.ndarray, spans_n2: np.ndarray
) -> Placement:
    """Places sentences where they were compared: equally good seconds share the hit, uncovered
    sentences miss.

    Args:
        similarity_nL: float [n, L].
        covered_nL: bool [n, L], where sentence and second were compared.
        spans_n2: float [n, 2], true start and end in seconds.
    """
    filled_nL = np.where(covered_nL, similarity_nL, -np.inf)
    peaks_n1 = filled_nL.max(axis=1, keepdims=True)
    # A sentence without any covered second has no best one, although its maxima are equal.
    best_nL = covered_nL & (filled_nL == peaks_n1)
    hits_n = _share(best_nL, spans_n2)
    peaks_n = peaks_n1[:, 0]
    return hits_n, peaks_n.astype(np.float64)


def chance_hits(
    covered_nL: np.ndarray, spans_n2: np.ndarray, *, released: bool
) -> np.ndarray:
    """Returns the expected hits, float64 [n], of similarities drawn independently for every
    sentence and second.

    Args:
        covered_nL: bool [n, L], where sentence and second are compared.
        spans_n2: float [n, 2], true start and end in seconds.
        released: True: a sentence that is never covered is placed at second 0, as published.
            False: it is a miss.
    """
    places_nL = covered_nL.copy()
    if released:
        never_n = ~covered_nL.any(axis=1)
        places_nL[never_n, 0] = True
    return _share(places_nL, spans_n2)


def _share(places_nL: np.ndarray, spans_n2: np.ndarray) -> np.ndarray:
    """Returns the share of true seconds among the marked ones, 0 where none is marked."""
    _, num_seconds = places_nL.shape
    right_nL = places_nL & true_seconds(spans_n2, num_seconds)
    num_right_n = right_nL.sum(axis=1)
    num_places_n = places_nL.sum(axis=1)
    return num_right_n / np.maximum(num_places_n, 1)


def roc_auc(scores_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Returns the probability that a positive scores above a negative, ties counting half
    (Mann-Whitney's statistic).

    Args:
        scores_N: float [P + M].
        positive_N: bool [P + M]; the result is NaN unless there is one of each kind.
    """
    num_positive = int(positive_N.sum())
    num_negative = len(positive_N) - num_positive
    # Rank the scores from 1, the smallest. Equal scores get the mean of their ranks.
    _, place_N, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
    last_ranks = np.cumsum(counts)
    mean_ranks = last_ranks - (counts - 1) / 2
    rank_N = mean_ranks[place_N]
    positive_ranks = rank_N[positive_N]
    # The rank of a positive counts the negatives below it, and also the positives up to itself:
    # 1 + 2 + ... over all positives.
    among_positives = num_positive * (num_positive + 1) / 2
    num_wins = positive_ranks.sum() - among_positives
    return float(num_wins / (num_positive * num_negative))


def chance_auc(covered_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Returns the expected ROC-AUC if the score of a sentence is the largest of independent draws,
    one for each second that it was compared with.

    If one sentence has a draws and another has b, the first one scores higher with probability
    a / (a + b). Two sentences without draws tie.

    Args:
        covered_N: int [P + M], seconds compared with each sentence.
        positive_N: bool [P + M], with at least one of each kind.
    """
    # Many sentences have the same number of draws, so only pairs of different numbers are computed.
    a, num_a = np.unique(covered_N[positive_N], return_counts=True)
    b, num_b = np.unique(covered_N[~positive_N], return_counts=True)
    a_column = a[:, None]
    both = a_column + b
    shares = a_column / np.maximum(both, 1)
    wins = np.where(both > 0, shares, 0.5)
    num_wins = num_a @ wins @ num_b
    num_pairs = num_a.sum() * num_b.sum()
    return float(num_wins / num_pairs)
