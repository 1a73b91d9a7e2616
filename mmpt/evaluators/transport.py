"""The score of aligning two sequences by optimal transport, for many pairs of one size.

Legend: S captions and W clips of a pair, P pairs.
"""

import numpy as np

EPSILON = 1.0
"""Smoothness of the transport, in units of a score. The towers are trained with temperature 1."""
ITERATIONS = 50
"""Iterations of Sinkhorn's algorithm, as in the training losses."""
# A share of e^-300 is negligible, and the product of two such numbers is still above the smallest
# float64.
_MIN_LOG = -300.0


def transport_score(
    scores_SWP: np.ndarray, epsilon: float = EPSILON, iterations: int = ITERATIONS
) -> np.ndarray:
    """Returns the mean score under the entropic transport plan of each pair, float64 [P].

    The plan Q transports uniform masses of sum 1, and the result is sum(Q * score). It is Q =
    diag(u) exp(score / epsilon) diag(v). Sinkhorn's algorithm finds u and v by updating the rows
    and then the columns. If all scores of a pair are equal, the result is exactly that score.

    Args:
        scores_SWP: float.
        epsilon: smoothness, in units of a score.
        iterations: number of updates of rows and columns.
    Source: Cuturi 2013; Norton (arXiv 2401.16702), section 3.2, without its bucket.
    """
    # The masses sum to 1, so the best score of a pair can be added at the end.
    best_P = scores_SWP.max(axis=(0, 1))
    below_SWP = scores_SWP.astype(np.float64) - best_P
    # Scale the kernel so that it neither overflows nor vanishes: first every row by its largest
    # entry, then every column. u and v absorb the factors.
    log_kernel_SWP = below_SWP / epsilon
    log_kernel_SWP -= log_kernel_SWP.max(axis=1, keepdims=True)
    log_v_WP = log_kernel_SWP.max(axis=0)
    log_kernel_SWP -= log_v_WP
    log_kernel_SWP = np.maximum(log_kernel_SWP, _MIN_LOG)
    log_v_WP = np.maximum(log_v_WP, _MIN_LOG)
    kernel_SWP = np.exp(log_kernel_SWP)
    v_WP = np.exp(log_v_WP)
    num_rows, num_cols, _ = kernel_SWP.shape
    for _ in range(iterations):
        # The rows of the plan sum to 1 / num_rows, then its columns to 1 / num_cols.
        row_sums_SP = np.einsum("swp,wp->sp", kernel_SWP, v_WP)
        u_SP = 1 / (num_rows * row_sums_SP)
        col_sums_WP = np.einsum("swp,sp->wp", kernel_SWP, u_SP)
        v_WP = 1 / (num_cols * col_sums_WP)
    mean_below_P = np.einsum("swp,swp,sp,wp->p", below_SWP, kernel_SWP, u_SP, v_WP)
    return best_P + mean_below_P
