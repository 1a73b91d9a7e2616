"""Alignment scores of all pairs at once against loops over one pair."""

import numpy as np
import pytest

from mmpt.evaluators import full_video
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.functional import ranks_from_scores
from mmpt.evaluators.warping import Form
from tests.evaluators import naive_warping

# ragged, with several longest videos and single-clip ones; equal; only single clips; one video
LENGTHS = [[3, 6, 1, 4, 6, 2, 1], [4, 4, 4], [1, 1, 1, 1], [5]]


def blocks_of(scores: np.ndarray, rows: list[int], cols: list[int]) -> list[list[np.ndarray]]:
    """The block of every paragraph and video."""
    parts = np.split(scores, np.cumsum(rows)[:-1])
    return [np.split(part, np.cumsum(cols)[:-1], axis=1) for part in parts]


def random_scores(lengths: list[int], seed: int) -> np.ndarray:
    total = sum(lengths)
    return np.random.default_rng(seed).normal(0.5, 2.0, size=(total, total)).astype(np.float32)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_caption_average_equals_a_loop(lengths: list[int]) -> None:
    scores = random_scores(lengths, 1)
    result = full_video.caption_average(scores, Lengths.of(np.array(lengths)))
    blocks = blocks_of(scores, lengths, lengths)
    expected = [[np.mean([max(row) for row in block]) for block in row] for row in blocks]
    np.testing.assert_allclose(result, expected, atol=1e-6)  # 2.4e-7


@pytest.mark.parametrize("form", ["released", "corrected"])
@pytest.mark.parametrize("kind", ["dtw", "otam"])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_alignment_scores_equal_a_loop(
    lengths: list[int], kind: str, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_video, "_CELLS_PER_CHUNK", 72)  # pairs must not depend on their chunk
    scores = random_scores(lengths, 2)
    result = getattr(full_video, kind)(scores, Lengths.of(np.array(lengths)), form)
    assert result.dtype == np.float32
    longest = max(lengths)
    expected = np.zeros(result.shape)
    for i, row in enumerate(blocks_of(scores, lengths, lengths)):
        for j, block in enumerate(row):
            distance = -block.astype(np.float64) * longest**2 / block.size
            expected[i, j] = naive_warping.score(distance, kind, form, longest, longest)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-5)  # 8.7e-6 of 164: float32


def loop_transport(block: np.ndarray, epsilon: float) -> float:
    """Sinkhorn on the kernel itself, a pair at a time, 50 rounds."""
    rows, cols = block.shape
    kernel = np.exp(block.astype(np.float64) / epsilon)
    v = np.ones(cols)
    for _ in range(50):
        u = (1 / rows) / (kernel @ v)
        v = (1 / cols) / (kernel.T @ u)
    return float((u[:, None] * kernel * v * block).sum())


@pytest.mark.parametrize("epsilon", [1.0, 0.1])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_transport_equals_a_loop(lengths: list[int], epsilon: float) -> None:
    scores = random_scores(lengths, 4)
    blocks = blocks_of(scores, lengths, lengths)
    expected = [[loop_transport(block, epsilon) for block in row] for row in blocks]
    result = full_video.optimal_transport(scores, Lengths.of(np.array(lengths)), epsilon)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)  # 1.2e-7: float32 results


def test_transport_of_certain_scores_finds_the_matching_and_does_not_overflow() -> None:
    scores = np.full((3, 3), -5000.0)
    scores[[0, 1, 2], [2, 0, 1]] = 7000.0  # exp(12000) is no number
    assert full_video.transport_score(scores[:, :, None]) == pytest.approx(7000)
    equal = full_video.transport_score(np.full((2, 5, 1), 0.3))
    assert equal.item() == 0.3  # just that score


def test_the_corrected_form_does_not_depend_on_other_videos() -> None:
    scores = random_scores([3, 2, 7], 3)
    few, all_three = Lengths.of(np.array([3, 2])), Lengths.of(np.array([3, 2, 7]))
    for function in (full_video.dtw, full_video.otam):
        alone = function(scores[:5, :5], few, "corrected")
        together = function(scores, all_three, "corrected")[:2, :2]
        # Only the common scale differs.
        np.testing.assert_allclose(together, alone * 49 / 9, rtol=1e-5)
        alone = function(scores[:5, :5], few, "released")
        together = function(scores, all_three, "released")[:2, :2]
        assert not np.allclose(together, alone * 49 / 9, rtol=1e-2)


def test_order_decides_dtw_but_not_caption_average_and_transport() -> None:
    lengths = Lengths.of(np.array([4, 4]))
    scores = 10 * np.kron(np.ones((2, 2)), np.eye(4))  # both videos hold the same clips ...
    scores[:, 4:] = scores[:, 4:][:, ::-1]  # ... the second one backwards
    for function in (full_video.caption_average, full_video.optimal_transport):
        result = function(scores, lengths)
        np.testing.assert_allclose(result, result[0, 0], rtol=1e-6)
    for function in (full_video.dtw, full_video.otam):
        aligned = function(scores, lengths, "corrected")
        assert aligned[0, 0] > aligned[0, 1]


@pytest.mark.parametrize(("limit", "most_chunks"), [(1, 30), (2000, 10), (1 << 24, 1)])
def test_ranks_do_not_depend_on_how_many_paragraphs_are_scored_at_a_time(
    limit: int, most_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    lengths = Lengths.of(rng.integers(1, 5, 30), rng.integers(1, 9, 30))
    text, video = (
        rng.normal(size=(total.sum(), 6)).round(1) for total in (lengths.captions, lengths.clips)
    )
    monkeypatch.setattr(full_video, "_SCORES_PER_CHUNK", limit)
    chunks = full_video.paragraph_chunks(lengths)
    assert most_chunks / 2 < len(chunks) <= most_chunks
    ways = {"average": full_video.caption_average, "dtw": full_video.dtw}
    parts = [full_video.paragraph_ranks(text, video, lengths, ways, chunk) for chunk in chunks]
    for name, way in ways.items():
        whole = ranks_from_scores(way(text @ video.T, lengths))
        assert np.concatenate([part[name] for part in parts]).tolist() == whole.tolist()
        assert len(set(whole.tolist())) > 5  # the case is not trivial


def test_chunks_hold_as_many_paragraphs_as_fit_and_one_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = Lengths.of(np.array([3, 2, 9, 1, 1]))  # 16 clips
    monkeypatch.setattr(full_video, "_SCORES_PER_CHUNK", 5 * 16)
    assert full_video.paragraph_chunks(lengths) == [(0, 2), (2, 3), (3, 5)]


@pytest.mark.parametrize(
    ("ids", "starts_s", "order", "lengths"),
    [
        (["b", "a", "b", "c", "a"], [5.0, 9.0, 1.0, 0.0, 3.0], [2, 0, 4, 1, 3], [2, 2, 1]),
        (["ab", "a", "ab", "a"], None, [0, 2, 1, 3], [2, 2]),  # `a` is a part of `ab`
    ],
)
def test_grouping_brings_clips_of_a_video_together_in_time(
    ids: list[str], starts_s: list[float] | None, order: list[int], lengths: list[int]
) -> None:
    grouping = full_video.group_by_video(ids, starts_s)
    assert (grouping.order.tolist(), grouping.lengths.tolist()) == (order, lengths)
    assert grouping.videos == list(dict.fromkeys(ids))
