"""Alignment with whole videos and their background, against loops over single pairs.

The loops follow the definitions.
"""

import numpy as np
import pytest

from mmpt.evaluators import full_video
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.warping import Form
from tests.support import naive_warping
from tests.support.naive_warping import blocks_of

# Numbers of captions and windows. Ragged. More captions than windows, so that blocks are cropped.
# One caption. Equal.
SIZES = [
    ([3, 6, 1, 4, 6, 2], [9, 4, 12, 1, 7, 30]),
    ([9, 5, 8], [3, 2, 4]),
    ([1, 1], [5, 2]),
    ([4, 4, 4], [5, 5, 5]),
]


def loop_keep(distance: np.ndarray) -> np.ndarray:
    """Returns the int(1.3 * captions) nearest windows, in time order."""
    num_captions, num_windows = distance.shape
    nearest_to = distance.min(axis=0)
    order = sorted(range(num_windows), key=lambda window: (nearest_to[window], window))
    kept = order[: int(1.3 * num_captions)]
    return distance[:, sorted(kept)]


def loop_score(block: np.ndarray, kind: str, form: Form, rows: int, cols: int) -> float:
    """Returns the score of a pair. `rows` and `cols` are the largest numbers of the test set."""
    block = block.astype(np.float64)
    if kind == "dtw":
        kept = loop_keep(3 - block)
        scale = rows * cols / kept.size
    else:
        kept = loop_keep(-block)
        scale = max(rows, cols) / max(kept.shape)
    return naive_warping.score(kept * scale, kind, form, rows, cols)


@pytest.mark.parametrize("form", ["released", "corrected"])
@pytest.mark.parametrize("kind", ["dtw", "otam"])
@pytest.mark.parametrize(("captions", "windows"), SIZES, ids=str)
def test_alignment_scores_equal_a_loop(
    captions: list[int], windows: list[int], kind: str, form: Form
) -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(0.5, 2.0, size=(sum(captions), sum(windows))).astype(np.float32)
    lengths = Lengths.of(np.array(captions), np.array(windows))
    result = getattr(full_video, kind)(scores, lengths, form, background=True)
    expected = []
    for row in blocks_of(scores, captions, windows):
        expected.append(
            [loop_score(block, kind, form, *lengths.maximum) for block in row]
        )
    # 3.1e-5 of 999: float32.
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-5)


def test_the_nearest_windows_are_kept_in_time_order() -> None:
    distance = np.array([[5, 1, 9, 2, 9, 0], [9, 9, 3, 9, 9, 9]], dtype=np.float32)
    # int(1.3 * 2) = 2 windows: the last and the second.
    kept = full_video.nearest_windows(distance[:, :, None])
    assert kept[:, :, 0].tolist() == [[1, 0], [9, 9]]
    ten = np.arange(14, dtype=np.float32)[None, :, None].repeat(10, axis=0)
    assert full_video.nearest_windows(ten).shape == (10, 13, 1)
    equal = np.zeros((1, 4, 1), dtype=np.float32)
    equal[0, 0] = 1
    assert full_video.nearest_windows(equal).shape == (1, 1, 1)


def test_transport_reads_the_kept_windows_only() -> None:
    scores = np.array([[8.0, -50.0, 1.0, -50.0], [0.0, -50.0, 9.0, -50.0]])
    lengths = Lengths.of(np.array([2]), np.array([4]))
    with_background = full_video.optimal_transport(scores, lengths, background=True)
    kept_only = full_video.optimal_transport(
        scores[:, [0, 2]], Lengths.of(np.array([2]))
    )
    assert with_background.item() == kept_only.item() == pytest.approx(8.5, abs=0.01)
