"""Moment retrieval against plain loops, on random scores and judgements."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.config import DatasetConfig
from mmpt.endtasks.didemo.evaluation import DiDeMoMetric, DiDeMoPredictor, MomentOutputs
from mmpt.errors import ConfigError
from mmpt.models import MMFusionSeparate
from tests.support.formula import fill_by_formula
from tests.support.naive_moments import naive_metrics
from tests.support.tiny_bert import tiny_bert_config

RNG = np.random.default_rng(0)


def random_outputs(count: int, people: int = 4) -> MomentOutputs:
    times = np.sort(RNG.integers(0, 6, (count, people, 2)), axis=2)
    times[:, 1] = times[:, 0]  # sometimes people agree
    times[::3, 2] = times[::3, 0]
    return MomentOutputs(
        second_scores=RNG.standard_normal((count, 30)).astype(np.float32),
        num_seconds=RNG.integers(1, 31, count),
        times=times,
        video_ids=[f"v{n}" for n in range(count)],
    )


@pytest.mark.parametrize("prefix", ["", "real-"])
def test_the_numbers_equal_loops(prefix: str) -> None:
    outputs = random_outputs(300)
    if prefix:  # the loops need videos that contain every judged moment
        reach = 5 * outputs.times.max(axis=(1, 2)) + 1
        outputs = replace(outputs, num_seconds=np.maximum(outputs.num_seconds, reach))
    numbers = DiDeMoMetric().compute(outputs)
    expected = naive_metrics(
        outputs.second_scores.tolist(),
        outputs.num_seconds.tolist(),
        outputs.times.tolist(),
        corrected=bool(prefix),
    )
    for name, value in expected.items():
        assert numbers[prefix + name] == pytest.approx(value, abs=1e-12)
    assert 0 < expected["rank1"] != numbers["rank1" if prefix else "real-rank1"]


def test_queries_with_few_judgements_or_without_a_ranked_one() -> None:
    piece_scores = np.array([[6.0, 5, 4, 3, 2, 1]] * 2, np.float32)
    outputs = MomentOutputs(
        second_scores=piece_scores.repeat(5, axis=1),
        num_seconds=np.array([30, 5]),
        times=np.array([[[0, 0], [0, 1], [-1, -1]], [[4, 4], [5, 5], [-1, -1]]]),
        video_ids=["a", "b"],
    )
    numbers = DiDeMoMetric().compute(outputs)
    # The first query has the ranks 1 and 2, and the IoUs 1 and 1/2. The judged moments of the
    # second query are not ranked and do not overlap the best one.
    assert (numbers["rank1"], numbers["rank5"]) == (0.0, 0.5)
    assert numbers["miou"] == pytest.approx((0.75 + 0) / 2)


def test_a_collapsed_model_is_at_chance() -> None:
    """Annotators prefer early and short moments, which a fixed order of ties would put first."""
    count = 4000
    times = np.zeros((count, 4, 2), dtype=np.int64)
    outputs = MomentOutputs(
        second_scores=np.zeros((count, 30), np.float32),
        num_seconds=np.full(count, 30),
        times=times,
        video_ids=["v"] * count,
    )
    numbers = DiDeMoMetric().compute(outputs)
    chance = DiDeMoMetric().chance(outputs)
    # 50 draws of 4000: standard error 5e-4.
    assert chance["rank1"] == pytest.approx(1 / 21, abs=2e-3)
    assert chance["rank5"] == pytest.approx(5 / 21, abs=4e-3)
    # A single draw. The tolerance is four standard errors of rank5.
    assert numbers == pytest.approx(chance, abs=0.03)


def test_states_of_padding_are_computed_even_with_packed_towers() -> None:
    """The published form uses them."""
    config = tiny_bert_config()
    sizes = {"num_hidden_video_layers": 2, "max_video_len": 32}
    plain = fill_by_formula(MMFusionSeparate(config, **sizes, packed=False), "hash")
    packed = fill_by_formula(MMFusionSeparate(config, **sizes, packed=True), "hash")
    inputs = {
        "caps": torch.zeros(2, 5, dtype=torch.int64),
        "cmasks": torch.ones(2, 5, dtype=torch.bool),
        "vfeats": torch.tensor([3.0, 4.0])[:, None, None].expand(-1, 32, 512),
        "vmasks": torch.arange(32) < torch.tensor([[8]] * 2),
    }
    batch = inputs | {
        "times": torch.zeros(2, 4, 2, dtype=torch.int64),
        "video_id": ["v3", "v4"],
    }
    predictor = DiDeMoPredictor(DatasetConfig(max_video_len=32))
    outputs = predictor(packed, [batch], torch.device("cpu"))
    assert outputs.num_seconds.tolist() == [8, 8]
    with torch.no_grad():
        expected = plain.eval()(**inputs)
    states = expected["video_outputs"][:, 1:31]
    assert states[:, 8:].abs().amax(dim=2).min() > 0.1
    scores = torch.einsum("bsd,bd->bs", states, expected["pooled_text"])
    # 1e-5.
    np.testing.assert_allclose(outputs.second_scores, scores, rtol=1e-4, atol=1e-4)


def test_windows_must_have_room_for_all_moments() -> None:
    message = r"`dataset\.max_video_len` must be at least the 30 seconds"
    with pytest.raises(ConfigError, match=message):
        DiDeMoPredictor(DatasetConfig(max_video_len=16))


class Echo(torch.nn.Module):
    """A model whose states are the features. The score of a row is the sum of its numbers."""

    def forward_video(self, vfeats: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.nn.functional.pad(vfeats, (0, 0, 1, 1))

    def forward_text(self, caps: torch.Tensor, *_: object) -> tuple[torch.Tensor]:
        return (torch.ones(len(caps), 4),)


def test_the_scores_of_a_second_are_averaged_over_its_rows() -> None:
    config = DatasetConfig(max_video_len=32, feature_fps=2)
    vfeats = torch.randn(1, 64, 4, generator=torch.Generator().manual_seed(0))
    caps = torch.ones(1, 5, dtype=torch.long)
    batch = {
        "caps": caps,
        "cmasks": caps > 0,
        "vfeats": vfeats,
        "vmasks": torch.arange(64)[None] < 41,
        "times": torch.zeros(1, 1, 2, dtype=torch.long),
        "video_id": ["a"],
    }
    outputs = DiDeMoPredictor(config)(Echo(), [batch], torch.device("cpu"))
    wanted = vfeats[:, :60].sum(dim=2).reshape(1, 30, 2).mean(dim=2)
    np.testing.assert_allclose(outputs.second_scores, wanted, atol=1e-6)
    assert outputs.num_seconds.tolist() == [21]
