"""Moment retrieval against plain loops, on random scores and judgements."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig

from mmpt.config import DatasetConfig
from mmpt.endtasks.didemo.evaluation import DiDeMoMetric, DiDeMoPredictor, MomentOutputs
from mmpt.endtasks.didemo.moments import MOMENTS, moment_scores, rank_moments
from mmpt.errors import CheckpointError, ConfigError
from mmpt.evaluators.base import CLIPS
from mmpt.models import MMFusionSeparate
from tests.parity.formula import fill_by_formula

CPU = torch.device("cpu")
GOLDEN = Path(__file__).resolve().parents[1] / "parity" / "golden"
RNG = np.random.default_rng(0)


def random_outputs(count: int, people: int = 4) -> MomentOutputs:
    times = np.sort(RNG.integers(0, 6, (count, people, 2)), axis=2)
    times[:, 1] = times[:, 0]  # people agree now and then
    times[::3, 2] = times[::3, 0]
    return MomentOutputs(
        second_scores=RNG.standard_normal((count, 30)).astype(np.float32),
        num_seconds=RNG.integers(1, 31, count),
        times=times,
        video_ids=[f"v{n}" for n in range(count)],
    )


def naive_metrics(outputs: MomentOutputs, corrected: bool) -> dict[str, float]:
    ranks, ious = [], []
    for scores, seconds, times in zip(
        outputs.second_scores, outputs.num_seconds, outputs.times, strict=True
    ):
        scored = []
        for a, b in itertools.combinations_with_replacement(range(6), 2):
            if 5 * (b if corrected else a) < seconds:
                end = min(5 * b + 5, seconds) if corrected else 5 * b + 5
                scored.append((float(np.mean(scores[5 * a : end], dtype=np.float64)), (a, b)))
        order = [moment for _, moment in sorted(scored, reverse=True)]
        chosen = [tuple(moment) for moment in times.tolist() if moment[0] >= 0]
        found = sorted(order.index(moment) + 1 for moment in chosen if moment in order)
        ranks.append(np.mean(found[:3]) if found else 99)
        first = set(range(order[0][0], order[0][1] + 1))
        overlaps = [set(range(a, b + 1)) for a, b in chosen]
        ious.append(
            np.mean(sorted(len(first & other) / len(first | other) for other in overlaps)[-3:])
        )
    return {
        "rank1": np.mean(np.array(ranks) <= 1),
        "rank5": np.mean(np.array(ranks) <= 5),
        "miou": np.mean(ious),
    }


def test_published_numbers_by_loops() -> None:
    outputs = random_outputs(300)
    numbers = DiDeMoMetric().compute(outputs)
    expected = naive_metrics(outputs, corrected=False)
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert expected["rank1"] > 0


def test_corrected_numbers_by_loops_on_videos_that_reach_every_judged_moment() -> None:
    outputs = random_outputs(300)
    reach = 5 * outputs.times.max(axis=(1, 2)) + 1
    long_enough = replace(outputs, num_seconds=np.maximum(outputs.num_seconds, reach))
    numbers = DiDeMoMetric().compute(long_enough)
    expected = naive_metrics(long_enough, corrected=True)
    assert {name: numbers[f"real-{name}"] for name in expected} == pytest.approx(
        expected, abs=1e-12
    )
    assert {name: numbers[name] for name in expected} != pytest.approx(expected, abs=1e-3)


def test_moments_without_a_second_are_left_out_or_last() -> None:
    scores, seconds = RNG.random((1, 21)), np.array([11])
    released, corrected = (
        rank_moments(scores, seconds, form)[0] for form in ("released", "corrected")
    )
    begun = [m for m, (first, _) in enumerate(MOMENTS) if first <= 2]
    assert sorted(released[: len(begun)]) == begun
    assert (released[len(begun) :] == -1).all()
    ended = [m for m, (_, last) in enumerate(MOMENTS) if last <= 2]
    assert sorted(corrected[: len(ended)]) == ended
    assert sorted(corrected) == list(range(21))


def test_padding_counts_in_the_published_mean_only() -> None:
    seconds = np.full((1, 30), 9.0)
    seconds[0, :7] = 1.0
    moment = MOMENTS.index((1, 1))
    assert moment_scores(seconds, np.array([7]), "released")[0, moment] == pytest.approx(
        (2 * 1 + 3 * 9) / 5
    )
    assert moment_scores(seconds, np.array([7]), "corrected")[0, moment] == 1.0
    assert moment_scores(seconds, np.array([7]), "corrected")[0, MOMENTS.index((3, 5))] == 0.0


def test_fewer_judgements_than_count_and_none_that_is_ranked() -> None:
    outputs = MomentOutputs(
        second_scores=np.repeat(np.array([[6.0, 5, 4, 3, 2, 1]] * 2, np.float32), 5, axis=1),
        num_seconds=np.array([30, 5]),
        times=np.array([[[0, 0], [0, 1], [-1, -1]], [[4, 4], [5, 5], [-1, -1]]]),
        video_ids=["a", "b"],
    )
    numbers = DiDeMoMetric().compute(outputs)
    # first query: ranks 1 and 2, IoU 1 and 1/2; second: no judged moment is ranked, nothing
    # overlaps
    assert (numbers["rank1"], numbers["rank5"]) == (0.0, 0.5)
    assert numbers["miou"] == pytest.approx((0.75 + 0) / 2)


def test_a_collapsed_model_is_at_chance() -> None:
    """People mark early and short moments, which a fixed order of equal scores would put first."""
    count = 4000
    times = np.zeros((count, 4, 2), dtype=np.int64)
    outputs = MomentOutputs(
        second_scores=np.zeros((count, 30), np.float32),
        num_seconds=np.full(count, 30),
        times=times,
        video_ids=["v"] * count,
    )
    numbers, chance = DiDeMoMetric().compute(outputs), DiDeMoMetric().chance(outputs)
    # 50 draws of 4000: standard error 5e-4.
    assert chance["rank1"] == pytest.approx(1 / 21, abs=2e-3)
    assert chance["rank5"] == pytest.approx(5 / 21, abs=4e-3)
    assert numbers == pytest.approx(chance, abs=0.03)  # one draw: four standard errors of rank5


class Towers(nn.Module):
    """States that say where they are and in which video."""

    def __init__(self, value: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.videos = 0

    def forward_text(self, caps: torch.Tensor, cmasks: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.ones(len(caps), 3) * self.weight / 3,)

    def forward_video(self, vfeats: torch.Tensor, **_: Any) -> torch.Tensor:
        self.videos += len(vfeats)
        positions = torch.arange(vfeats.shape[1] + 2.0)[None, :, None] + 100 * vfeats[:, :1, :1]
        return positions.expand(-1, -1, 3)


def batch(videos: list[int], seconds: int) -> dict[str, object]:
    count = len(videos)
    vmasks = torch.arange(32) < torch.tensor([[seconds]] * count)
    return {
        "caps": torch.zeros(count, 5, dtype=torch.int64),
        "cmasks": torch.ones(count, 5, dtype=torch.bool),
        "vfeats": torch.tensor(videos)[:, None, None].expand(-1, 32, 512).float(),
        "vmasks": vmasks,
        "times": torch.zeros(count, 4, 2, dtype=torch.int64),
        "video_id": [f"v{video}" for video in videos],
    }


def test_the_predictor_takes_the_states_after_cls_and_runs_each_video_once() -> None:
    towers = Towers()
    batches = [batch([5, 7, 5], 32), batch([7, 9], 8)]
    outputs = DiDeMoPredictor(DatasetConfig(max_video_len=32))(towers, batches, CPU)
    expected = [100 * video + np.arange(1, 31) for video in (5, 7, 5, 7, 9)]
    np.testing.assert_allclose(outputs.second_scores, expected, rtol=1e-6)
    assert towers.videos == 3
    assert outputs.num_seconds.tolist() == [30, 30, 30, 8, 8]
    assert outputs.arrays()["ranking"].shape == (5, 21)


def test_states_of_padding_are_computed_although_the_towers_leave_padding_out() -> None:
    """The published form reads them."""
    config = BertConfig.from_json_file(GOLDEN / "tinybert_config.json")
    sizes = {"num_hidden_video_layers": 2, "max_video_len": 32}
    plain, packed = (
        fill_by_formula(MMFusionSeparate(config, **sizes, packed=packed), "hash")
        for packed in (False, True)
    )
    inputs = batch([3, 4], 8)
    outputs = DiDeMoPredictor(DatasetConfig(max_video_len=32))(packed, [inputs], CPU)
    with torch.no_grad():
        expected = plain.eval()(**{name: inputs[name] for name in CLIPS})
    states = expected["video_outputs"][:, 1:31]
    assert states[:, 8:].abs().amax(dim=2).min() > 0.1
    scores = torch.einsum("bsd,bd->bs", states, expected["pooled_text"])
    np.testing.assert_allclose(outputs.second_scores, scores, rtol=1e-4, atol=1e-4)  # 1e-5


def test_what_cannot_be_scored() -> None:
    message = r"`dataset\.max_video_len` must be at least the 30 seconds"
    with pytest.raises(ConfigError, match=message):
        DiDeMoPredictor(DatasetConfig(max_video_len=16))
    predictor = DiDeMoPredictor(DatasetConfig(max_video_len=32))
    with pytest.raises(CheckpointError, match="2 of 2 sentences are not finite"):
        predictor(Towers(float("inf")), [batch([1, 2], 30)], CPU)
