"""Alignment with whole videos and their background against loops over one pair, written from the definitions."""

import numpy as np
import pytest

from mmpt.evaluators import full_video_bg
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.warping import Form

# captions and windows: ragged; more captions than windows (crops the block that lies on its side); one caption; equal
SIZES = [
    ([3, 6, 1, 4, 6, 2], [9, 4, 12, 1, 7, 30]),
    ([9, 5, 8], [3, 2, 4]),
    ([1, 1], [5, 2]),
    ([4, 4, 4], [5, 5, 5]),
]


def loop_keep(d: np.ndarray) -> np.ndarray:
    """The int(1.3 * captions) nearest windows, in time order."""
    nearest = sorted(range(d.shape[1]), key=lambda w: (d[:, w].min(), w))
    return d[:, sorted(nearest[: int(1.3 * d.shape[0])])]


def released_pad(d: np.ndarray, rows: int, cols: int, border: bool) -> np.ndarray:
    more_rows, more_cols = rows - d.shape[0], cols - d.shape[1]
    if border:
        d = np.pad(d, ((0, 0), (1, 1)))
    padded = np.full((d.shape[0] + more_rows, d.shape[1] + more_cols), np.inf)
    for r in range(min(d.shape[0], padded.shape[0])):
        for c in range(min(d.shape[1], padded.shape[1])):
            padded[r, c] = d[r, c]
    padded[-more_rows - 1 :, -more_cols:] = 0
    return padded


def loop_dtw(d: np.ndarray) -> float:
    total = np.full((d.shape[0] + 1, d.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for r in range(d.shape[0]):
        for c in range(d.shape[1]):
            total[r + 1, c + 1] = d[r, c] + min(total[r, c], total[r, c + 1], total[r + 1, c])
    return total[-1, -1]


def loop_otam(d: np.ndarray, sign: int) -> float:
    total, last = np.zeros(d.shape), d.shape[1] - 1
    total[0, 1:] = np.cumsum(d[0, 1:])
    for r in range(1, d.shape[0]):
        total[r, 1] = d[r, 1] + sign * min(total[r - 1, 0], total[r - 1, 1], total[r, 0])
        for c in range(2, last):
            total[r, c] = d[r, c] + min(total[r - 1, c - 1], total[r, c - 1])
        total[r, last] = d[r, last] + min(
            total[r - 1, last - 1], total[r - 1, last], total[r, last - 1]
        )
    return total[-1, -1]


def loop_score(block: np.ndarray, kind: str, form: Form, rows: int, cols: int) -> float:
    """One pair; `rows` and `cols` are the most captions and windows of any video."""
    block = block.astype(np.float64)
    if kind == "dtw":
        d = loop_keep(3 - block)
        d = d * (rows * cols) / (d.shape[0] * d.shape[1])
        return -loop_dtw(released_pad(d, rows, cols, border=False) if form == "released" else d)
    d = loop_keep(-block)
    d = d * max(rows, cols) / max(d.shape)
    if form == "released":
        return -sum(loop_otam(released_pad(side, rows, cols, border=True), -1) for side in (d, d.T))
    return -sum(loop_otam(np.pad(side, ((0, 0), (1, 1))), 1) for side in (d, d.T))


@pytest.mark.parametrize("form", ["released", "corrected"])
@pytest.mark.parametrize("kind", ["dtw", "otam"])
@pytest.mark.parametrize(("captions", "windows"), SIZES, ids=str)
def test_alignment_scores_equal_a_loop(
    captions: list[int], windows: list[int], kind: str, form: Form
) -> None:
    scores = (
        np.random.default_rng(2)
        .normal(0.5, 2.0, size=(sum(captions), sum(windows)))
        .astype(np.float32)
    )
    result = getattr(full_video_bg, kind)(
        scores, Lengths.of(np.array(captions), np.array(windows)), form
    )
    blocks = [
        np.split(rows, np.cumsum(windows)[:-1], axis=1)
        for rows in np.split(scores, np.cumsum(captions)[:-1])
    ]
    expected = [
        [loop_score(block, kind, form, max(captions), max(windows)) for block in row]
        for row in blocks
    ]
    np.testing.assert_allclose(
        result, expected, rtol=1e-6, atol=1e-5
    )  # 3.1e-5 of 999: float32 sums


def test_the_nearest_windows_are_kept_in_time_order() -> None:
    distance = np.array([[5, 1, 9, 2, 9, 0], [9, 9, 3, 9, 9, 9]], dtype=np.float32)[:, :, None]
    kept = full_video_bg.nearest_windows(
        distance
    )  # int(1.3 * 2) = 2 windows: the last and the second
    assert kept[:, :, 0].tolist() == [[1, 0], [9, 9]]
    ten = np.arange(14, dtype=np.float32)[None, :, None].repeat(10, axis=0)
    assert full_video_bg.nearest_windows(ten).shape == (10, 13, 1)
    equal = np.zeros((1, 4, 1), dtype=np.float32)
    equal[0, 0] = 1
    assert full_video_bg.nearest_windows(equal).shape == (1, 1, 1)


def test_transport_reads_the_kept_windows_only() -> None:
    scores = np.array([[8.0, -50.0, 1.0, -50.0], [0.0, -50.0, 9.0, -50.0]])
    lengths = Lengths.of(np.array([2]), np.array([4]))
    with_background = full_video_bg.optimal_transport(scores, lengths)
    kept_only = full_video_bg.optimal_transport(
        scores[:, [0, 2]], Lengths.of(np.array([2]), np.array([2]))
    )
    assert with_background.item() == kept_only.item() == pytest.approx(8.5, abs=0.01)
