"""The length and the type of the rows of features in files."""

import numpy as np
import pytest

from mmpt.shards.feature_rows import finish_features


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_stored_features_are_normalised_on_request(dtype):
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    wanted = np.array([[0.6, 0.8], [0.0, 0.0]], dtype)
    stored = finish_features(rows, l2_normalize=True, dtype=np.dtype(dtype))
    np.testing.assert_array_equal(stored, wanted, strict=True)
    plain = finish_features(rows, l2_normalize=False, dtype=np.dtype(dtype))
    np.testing.assert_array_equal(plain, rows.astype(dtype), strict=True)


def test_large_rows_of_float16_are_divided_without_overflow() -> None:
    rows = np.full((1, 512), 9000, np.float16)  # the square of its length is 4e10
    stored = finish_features(rows, l2_normalize=True, dtype=np.dtype(np.float16))
    np.testing.assert_allclose(stored, 512**-0.5, rtol=1e-3)


def test_numbers_that_are_too_large_become_infinite_without_a_warning() -> None:
    rows = np.array([[1e39, 1.0]])
    for normalize in (False, True):
        stored = finish_features(
            rows, l2_normalize=normalize, dtype=np.dtype(np.float16)
        )
        assert not np.isfinite(stored).all()
