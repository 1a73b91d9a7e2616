"""Step localisation against a search of all placements, and against plain loops."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.endtasks.crosstask.evaluation import (
    CrossTaskMetric,
    CrossTaskPredictor,
    LocalisationOutputs,
    PlacedVideo,
    expected_hits,
    place_steps,
)
from mmpt.processors.window_aligner import window_spans

CPU = torch.device("cpu")
METRIC = CrossTaskMetric()


def totals_of_placements(values_LK: np.ndarray) -> list[float]:
    """Returns, for every placement of the steps at increasing seconds, the sum of the values."""
    num_seconds, num_steps = values_LK.shape
    steps = range(num_steps)
    totals = []
    for seconds in itertools.combinations(range(num_seconds), num_steps):
        totals.append(float(values_LK[list(seconds), steps].sum()))
    return totals


def walk_by_states(cost_LK: np.ndarray) -> list[int]:
    """Returns the seconds of the steps, computed by a recursion over single states.

    The predecessors of a state are tried in the stated order, and the first of equal ones is taken.
    """
    num_seconds, num_steps = cost_LK.shape
    num_states = 2 * num_steps + 1
    best = [0.0] + [float("inf")] * (num_states - 1)
    came_from = []
    for second in range(num_seconds):
        new, origin = [], []
        for state in range(num_states):
            step, is_step = divmod(state, 2)
            tried = [state - 1, state - 2] if is_step else [state, state - 1]
            possible = [one for one in tried if one >= 0]
            chosen = min(possible, key=best.__getitem__)
            cost = cost_LK[second, step] if is_step else 0
            new.append(best[chosen] + cost)
            origin.append(chosen)
        best = new
        came_from.append(origin)
    state = num_states - 2 if best[-2] <= best[-1] else num_states - 1
    seconds = []
    for second in reversed(range(num_seconds)):
        if state % 2:
            seconds.append(second)
        state = came_from[second][state]
    return seconds[::-1]


@pytest.mark.parametrize("num_seconds", [4, 7, 11])
@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_the_cheapest_placement_in_order_is_found(
    num_seconds: int, num_steps: int
) -> None:
    """If costs are equal, the stated order decides."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost = rng.integers(0, 3, size=(num_seconds, num_steps)).astype(float)
        placed = place_steps(cost)
        assert placed.argmax(axis=0).tolist() == walk_by_states(cost)
        assert (placed * cost).sum() == min(totals_of_placements(cost))
        assert (placed.sum(axis=0) == 1).all()
        assert placed.dtype == np.uint8


def test_expected_hits_equal_the_mean_over_all_placements() -> None:
    rng = np.random.default_rng(3)
    for num_seconds, num_steps in ((1, 1), (5, 5), (8, 3), (9, 4)):
        done = rng.integers(0, 2, size=(num_seconds, num_steps))
        mean = np.mean(totals_of_placements(done))
        assert expected_hits(done) == pytest.approx(mean, abs=1e-12)
    assert expected_hits(np.ones((2, 3))) == 0
    # No overflow.
    assert expected_hits(np.ones((3000, 12))) == pytest.approx(12, abs=1e-9)


def video(task: str, done: list[list[int]], placed: list[list[int]]) -> PlacedVideo:
    return PlacedVideo(
        task, f"{task}v", np.array(done, np.uint8), np.array(placed, np.uint8)
    )


def test_recall_is_the_share_of_shown_steps_that_are_hit_averaged_over_tasks() -> None:
    videos = [
        # Step 1 is hit, step 2 is not in the video.
        video("1", [[1, 0], [1, 0], [0, 0]], [[1, 0], [0, 1], [0, 0]]),
        video("1", [[0, 1], [1, 0], [0, 0]], [[1, 0], [0, 1], [0, 0]]),  # both missed
        video("2", [[1, 1, 1]], [[0, 0, 0]]),  # fewer seconds than steps
        video("3", [[0], [0]], [[1], [0]]),  # no annotation: is not counted
    ]
    numbers = METRIC.compute(LocalisationOutputs(videos=videos))
    assert numbers == {"1": 1 / 3, "2": 0.0, "recall": 1 / 6}
    nothing = METRIC.compute(LocalisationOutputs(videos=videos[3:]))
    assert np.isnan(nothing["recall"])


class Echo(nn.Module):
    """Returns the features of the real seconds as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(
        self, vfeats: torch.Tensor, vmasks: torch.Tensor, **_: Any
    ) -> dict[str, torch.Tensor]:
        logits_RK = vfeats[vmasks]
        return {"logits": logits_RK * self.scale}


def batch_of(
    feature_LK: torch.Tensor, done_LK: torch.Tensor, name: str, fps: int = 1
) -> dict[str, Any]:
    num_seconds, num_steps = feature_LK.shape
    spans = window_spans(num_seconds, 3 * fps, 8 * fps)
    rows = [feature_LK[start:end] for start, end in spans]
    targets = [done_LK[start:end] for start, end in spans]
    vmasks = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    caps = torch.ones(1, num_steps, 4, dtype=torch.long)
    return {
        "caps": caps,
        "cmasks": caps > 0,
        "vfeats": nn.utils.rnn.pad_sequence(rows, batch_first=True)[None],
        "vmasks": nn.utils.rnn.pad_sequence(vmasks, batch_first=True)[None],
        "targets": torch.cat(targets)[None],
        "task": ["77"],
        "video_len": torch.tensor([num_seconds]),
        "video_id": [name],
    }


CONFIG = CrossTaskPredictor.Config(sliding_window=3, sliding_window_size=8)


def test_steps_are_placed_where_their_probability_is_highest() -> None:
    torch.manual_seed(0)
    feature = torch.randn(21, 4)
    done = (torch.rand(21, 4) > 0.7).float()
    batches = [batch_of(feature, done, "a"), batch_of(feature[:3], done[:3], "short")]
    outputs = CrossTaskPredictor(CONFIG)(Echo(), batches, CPU)
    first, short = outputs.videos
    np.testing.assert_array_equal(first.done, done)
    log_share = torch.log_softmax(feature.double(), dim=1).numpy()
    assert first.placed.argmax(axis=0).tolist() == walk_by_states(-log_share)
    assert not short.placed.any()
    names = {"Y_pred/77/a", "Y_true/77/a", "Y_pred/77/short", "Y_true/77/short"}
    assert outputs.arrays().keys() == names


def test_the_rows_of_a_second_are_averaged() -> None:
    torch.manual_seed(0)
    feature = torch.randn(21, 4)
    done = (torch.rand(21, 4) > 0.7).float()
    plain = CrossTaskPredictor(CONFIG)(Echo(), [batch_of(feature, done, "a")], CPU)
    # Two rows a second, whose means are the rows above. A step touches one of them.
    signs = torch.tensor([1.0, -1.0]).repeat(21)[:, None]
    rows = feature.repeat_interleave(2, dim=0) + signs * torch.rand(4)
    touched = torch.stack([done, torch.zeros_like(done)], dim=1).flatten(0, 1)
    batch = batch_of(rows, touched, "a", fps=2)
    config = CONFIG.replace(feature_fps=2)
    (video,) = CrossTaskPredictor(config)(Echo(), [batch], CPU).videos
    np.testing.assert_array_equal(video.done, plain.videos[0].done)
    np.testing.assert_array_equal(video.placed, plain.videos[0].placed)
