"""The rows of features as they are stored."""

from typing import Any

import numpy as np

MIN_NORM = 1e-12
"""The smallest L2 norm that a row is divided by. A row of zeros stays as it is."""


def finish_features(
    rows_ND: np.ndarray, *, l2_normalize: bool, dtype: np.dtype[Any]
) -> np.ndarray:
    """Returns the features of a video as they are stored.

    Args:
        rows_ND: floats [rows, D].
        l2_normalize: divide each row by its L2 norm.
        dtype: type of the result. Values that are too large for it become infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if l2_normalize:
            # The squares of float16 numbers may be too large for float16.
            rows_ND = rows_ND.astype(np.float32, copy=False)
            norms_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
            rows_ND = rows_ND / np.maximum(norms_N1, MIN_NORM)
        return rows_ND.astype(dtype, copy=False)
