"""Scores between paragraphs and whole videos with their background.

A video is all its windows here, with or without a caption. Before a paragraph is aligned with it,
the windows farthest from every caption are dropped. The caption average needs no dropping:
`full_video.caption_average`.
Legend as in full_video.py, with windows in place of clips; k windows of a pair are kept.
Sources: TempCLR (arXiv 2212.13738); Norton (arXiv 2401.16702), section 4.1.
"""

import numpy as np

from mmpt.evaluators.full_video import EPSILON, Lengths, score_pairs, transport_score
from mmpt.evaluators.warping import Form, dtw_cost, otam_cost

KEPT_PER_CAPTION = 1.3
DTW_OFFSET = np.float32(3)
"""A distance is this minus the score for DTW, and the negated score for OTAM, as released."""


def dtw(scores_RM: np.ndarray, lengths: Lengths, form: Form = "released") -> np.ndarray:
    """Returns minus the cost of dynamic time warping with the windows kept, float32 [p, n].

    Distances are 3 - score, scaled by T*L/(S*k).
    """

    def score(scores_SWP: np.ndarray) -> np.ndarray:
        kept_SkP = nearest_windows(DTW_OFFSET - scores_SWP)
        num_rows, num_cols = kept_SkP.shape[:2]
        scale = np.float32(lengths.most[0] * lengths.most[1] / (num_rows * num_cols))
        return -dtw_cost(kept_SkP * scale, lengths.most, form)

    return score_pairs(scores_RM, lengths, score)


def otam(scores_RM: np.ndarray, lengths: Lengths, form: Form = "released") -> np.ndarray:
    """Returns minus the ordered temporal alignment cost with the windows kept, float32 [p, n].

    The costs of both directions are added.

    Distances are negated scores, scaled by max(T, L)/max(S, k).
    """

    def score(scores_SWP: np.ndarray) -> np.ndarray:
        kept_SkP = nearest_windows(-scores_SWP)
        scale = np.float32(max(lengths.most) / max(kept_SkP.shape[:2]))
        return -otam_cost(kept_SkP * scale, lengths.most, form)

    return score_pairs(scores_RM, lengths, score)


def optimal_transport(
    scores_RM: np.ndarray, lengths: Lengths, epsilon: float = EPSILON
) -> np.ndarray:
    """Returns the mean score under the plan from captions to the windows kept, float32 [p, n]."""
    return score_pairs(
        scores_RM, lengths, lambda s_SWP: transport_score(-nearest_windows(-s_SWP), epsilon)
    )


def nearest_windows(distance_SWP: np.ndarray) -> np.ndarray:
    """Returns float [S, k, P]: the int(1.3 * S) windows nearest to any caption, in time order.

    All windows of shorter videos are kept; of equally near windows the earlier one is.
    """
    num_rows, num_cols = distance_SWP.shape[:2]
    num_kept = int(KEPT_PER_CAPTION * num_rows)
    if num_cols <= num_kept:
        return distance_SWP
    order_PW = np.argsort(distance_SWP.min(axis=0).T, axis=1, kind="stable")
    kept_kP = np.sort(order_PW[:, :num_kept], axis=1).T
    return np.take_along_axis(distance_SWP, kept_kP[None], axis=1)
