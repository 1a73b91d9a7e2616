"""Step localisation against trying every placement, and against plain loops."""

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


def totals_of_placements(values_LK: np.ndarray) -> dict[tuple[int, ...], float]:
    """The sum of the values at every increasing choice of a second per step."""
    num_seconds, num_steps = values_LK.shape
    placements = itertools.combinations(range(num_seconds), num_steps)
    return {one: float(values_LK[list(one), range(num_steps)].sum()) for one in placements}


def walk_by_states(cost: np.ndarray) -> list[int]:
    """The seconds of the steps by the recursion state by state, predecessors tried in the stated
    order.
    """
    num_seconds, num_steps = cost.shape
    best = [0.0] + [float("inf")] * (2 * num_steps)
    came_from = []
    for second in range(num_seconds):
        new, origin = [], []
        for state in range(2 * num_steps + 1):
            tried = [state, state - 1] if state % 2 == 0 else [state - 1, state - 2]
            # The first of equal ones.
            chosen = min((one for one in tried if one >= 0), key=lambda one: best[one])
            new.append(best[chosen] + (cost[second, state // 2] if state % 2 else 0))
            origin.append(chosen)
        best = new
        came_from.append(origin)
    state = 2 * num_steps - 1 if best[-2] <= best[-1] else 2 * num_steps
    seconds = []
    for second in reversed(range(num_seconds)):
        if state % 2:
            seconds.append(second)
        state = came_from[second][state]
    return seconds[::-1]


@pytest.mark.parametrize("num_seconds", [4, 7, 11])
@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_the_cheapest_placement_in_order_is_found(num_seconds: int, num_steps: int) -> None:
    """Equal costs are settled by the stated preferences."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost = rng.integers(0, 3, size=(num_seconds, num_steps)).astype(float)
        placed = place_steps(cost)
        assert placed.argmax(axis=0).tolist() == walk_by_states(cost)
        assert (placed * cost).sum() == min(totals_of_placements(cost).values())
        assert (placed.sum(axis=0) == 1).all()
        assert placed.dtype == np.uint8


def test_expected_hits_equal_the_mean_over_all_placements() -> None:
    rng = np.random.default_rng(3)
    for num_seconds, num_steps in ((1, 1), (5, 5), (8, 3), (9, 4)):
        done = rng.integers(0, 2, size=(num_seconds, num_steps))
        mean = np.mean(list(totals_of_placements(done).values()))
        assert expected_hits(done) == pytest.approx(mean, abs=1e-12)
    assert expected_hits(np.ones((2, 3))) == 0
    assert expected_hits(np.ones((3000, 12))) == pytest.approx(12, abs=1e-9)  # no overflow


def video(task: str, done: list[list[int]], placed: list[list[int]]) -> PlacedVideo:
    return PlacedVideo(task, f"{task}v", np.array(done, np.uint8), np.array(placed, np.uint8))


def test_recall_is_the_mean_over_tasks_of_hits_over_steps_that_are_there() -> None:
    videos = [
        # Step 1 is hit, step 2 is not in the video.
        video("1", [[1, 0], [1, 0], [0, 0]], [[1, 0], [0, 1], [0, 0]]),
        video("1", [[0, 1], [1, 0], [0, 0]], [[1, 0], [0, 1], [0, 0]]),  # both missed
        video("2", [[1, 1, 1]], [[0, 0, 0]]),  # fewer seconds than steps
        video("3", [[0], [0]], [[1], [0]]),  # nothing annotated: counts for nothing
    ]
    numbers = METRIC.compute(LocalisationOutputs(videos=videos))
    assert numbers == {"1": 1 / 3, "2": 0.0, "recall": 1 / 6}
    assert np.isnan(METRIC.compute(LocalisationOutputs(videos=videos[3:]))["recall"])


class Echo(nn.Module):
    """Gives the features of the real seconds as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(
        self, vfeats: torch.Tensor, vmasks: torch.Tensor, **_: Any
    ) -> dict[str, torch.Tensor]:
        return {"logits": vfeats[0][vmasks[0]] * self.scale}


def batch_of(feature_LK: torch.Tensor, done_LK: torch.Tensor, name: str) -> dict[str, Any]:
    spans = window_spans(len(feature_LK), 3, 8)
    rows = [feature_LK[start:end] for start, end in spans]
    lengths = torch.tensor([len(row) for row in rows])
    return {
        "caps": torch.ones(1, feature_LK.shape[1], 4, dtype=torch.long),
        "cmasks": torch.ones(1, feature_LK.shape[1], 4, dtype=torch.bool),
        "vfeats": nn.utils.rnn.pad_sequence(rows, batch_first=True)[None],
        "vmasks": (torch.arange(int(lengths.max())) < lengths[:, None])[None],
        "targets": torch.cat([done_LK[start:end] for start, end in spans])[None],
        "task": ["77"],
        "video_len": torch.tensor([len(feature_LK)]),
        "video_id": [name],
    }


CONFIG = CrossTaskPredictor.Config(sliding_window=3, sliding_window_size=8)


def test_steps_are_placed_where_their_share_of_probability_is_highest() -> None:
    torch.manual_seed(0)
    feature, done = torch.randn(21, 4), (torch.rand(21, 4) > 0.7).float()
    batches = [batch_of(feature, done, "a"), batch_of(feature[:3], done[:3], "short")]
    outputs = CrossTaskPredictor(CONFIG)(Echo(), batches, CPU)
    first, short = outputs.videos
    np.testing.assert_array_equal(first.done, done)
    log_share = torch.log_softmax(feature.double(), dim=1).numpy()
    assert first.placed.argmax(axis=0).tolist() == walk_by_states(-log_share)
    assert not short.placed.any()
    names = {f"{array}/77/{video}" for array in ("Y_pred", "Y_true") for video in ("a", "short")}
    assert outputs.arrays().keys() == names
