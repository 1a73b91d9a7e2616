"""Alignment scores of all pairs at once against loops over one pair."""

import numpy as np
import pytest

from mmpt.evaluators import full_video
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.functional import ranks_from_scores
from mmpt.evaluators.warping import Form
from tests.support import naive_warping
from tests.support.naive_warping import blocks_of

# Ragged, with several longest videos and single-clip ones. Equal. Only single clips. One video.
LENGTHS = [[3, 6, 1, 4, 6, 2, 1], [4, 4, 4], [1, 1, 1, 1], [5]]


def random_scores(lengths: list[int], seed: int) -> np.ndarray:
    total = sum(lengths)
    rng = np.random.default_rng(seed)
    return rng.normal(0.5, 2.0, size=(total, total)).astype(np.float32)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_caption_average_equals_a_loop(lengths: list[int]) -> None:
    scores = random_scores(lengths, 1)
    result = full_video.caption_average(scores, Lengths.of(np.array(lengths)))
    expected = np.zeros(result.shape)
    for i, row in enumerate(blocks_of(scores, lengths, lengths)):
        for j, block in enumerate(row):
            best = [max(caption_scores) for caption_scores in block]
            expected[i, j] = np.mean(best)
    np.testing.assert_allclose(result, expected, atol=1e-6)  # 2.4e-7


@pytest.mark.parametrize("form", ["released", "corrected"])
@pytest.mark.parametrize("kind", ["dtw", "otam"])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_alignment_scores_equal_a_loop(
    lengths: list[int], kind: str, form: Form
) -> None:
    scores = random_scores(lengths, 2)
    result = getattr(full_video, kind)(scores, Lengths.of(np.array(lengths)), form)
    assert result.dtype == np.float32
    longest = max(lengths)
    expected = np.zeros(result.shape)
    for i, row in enumerate(blocks_of(scores, lengths, lengths)):
        for j, block in enumerate(row):
            distance = -block.astype(np.float64) * longest**2 / block.size
            expected[i, j] = naive_warping.score(distance, kind, form, longest, longest)
    # 8.7e-6 of 164: float32.
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("cells_per_chunk", "most_pairs"), [(1, 1), (72, 2), (1 << 18, 4)]
)
def test_scores_of_pairs_do_not_depend_on_how_many_are_scored_at_a_time(
    cells_per_chunk: int, most_pairs: int
) -> None:
    # At most two paragraphs and two videos of a length, padded to 36 cells.
    lengths = LENGTHS[0]
    scores = random_scores(lengths, 3)
    num_pairs = []

    def largest(scores_SWP: np.ndarray) -> np.ndarray:
        num_pairs.append(scores_SWP.shape[2])
        return scores_SWP.max(axis=(0, 1))

    result = full_video.score_pairs(
        scores, Lengths.of(np.array(lengths)), largest, cells_per_chunk
    )
    for i, row in enumerate(blocks_of(scores, lengths, lengths)):
        for j, block in enumerate(row):
            assert result[i, j] == block.max()
    assert max(num_pairs) == most_pairs


@pytest.mark.parametrize(
    ("scores_per_chunk", "num_chunks"), [(1, 30), (2000, 5), (1 << 24, 1)]
)
def test_ranks_do_not_depend_on_how_many_paragraphs_are_scored_at_a_time(
    scores_per_chunk: int, num_chunks: int
) -> None:
    rng = np.random.default_rng(5)
    lengths = Lengths.of(rng.integers(1, 5, 30), rng.integers(1, 9, 30))
    text = rng.normal(size=(lengths.captions.sum(), 6)).round(1)
    video = rng.normal(size=(lengths.clips.sum(), 6)).round(1)
    seen = []

    def average(scores: np.ndarray, part: Lengths) -> np.ndarray:
        seen.append(scores.size)
        return full_video.caption_average(scores, part)

    ways = {"average": average, "dtw": full_video.dtw}
    ranks = full_video.paragraph_ranks(text, video, lengths, ways, scores_per_chunk)
    assert len(seen) == num_chunks
    assert max(seen) < scores_per_chunk + 5 * len(video)
    for name, way in ways.items():
        scores = way(text @ video.T, lengths)
        whole = ranks_from_scores(scores)
        assert ranks[name].tolist() == whole.tolist()
        assert len(set(whole.tolist())) > 5  # the case is not trivial


def test_grouping_brings_clips_of_a_video_together_in_time() -> None:
    videos = ["b", "ab", "b", "c", "ab"]  # `b` is a part of `ab`
    grouping = full_video.group_by_video(videos, [5.0, 9.0, 1.0, 0.0, 3.0])
    assert grouping.order.tolist() == [2, 0, 4, 1, 3]
    assert grouping.lengths.tolist() == [2, 2, 1]
    assert grouping.videos == ["b", "ab", "c"]
