"""Step segmentation against plain loops, on a model whose states are the features themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.config import DatasetConfig
from mmpt.endtasks.coin.evaluation import (
    COINActionSegmentationMetric,
    COINPredictor,
    COINZSPredictor,
    SegmentationOutputs,
    background_bound,
    embed_labels,
)
from mmpt.errors import CheckpointError, ConfigError, DataError
from mmpt.evaluators.functional import shared_credit
from mmpt.processors.window_aligner import window_spans
from tests.parity.e2e_data import make_e2e_files

WIDTH, STRIDE = 8, 3
CPU = torch.device("cpu")
METRIC = COINActionSegmentationMetric()


class Echo(nn.Module):
    """Gives its features as logits, and as the states of the video tower; a text's vector is looked
    up by its ids.
    """

    def __init__(self, texts_CD: torch.Tensor | None = None):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.texts_CD = texts_CD
        self.num_windows = 0
        self.num_texts = 0

    def forward(self, vfeats: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        self.num_windows += vfeats.shape[1]
        return {"logits": vfeats[0] * self.scale}

    def forward_video(self, vfeats: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self.num_windows += len(vfeats)
        return nn.functional.pad(vfeats, (0, 0, 1, 1))

    def forward_text(self, caps: torch.Tensor, cmasks: torch.Tensor) -> tuple[torch.Tensor]:
        self.num_texts += len(caps)
        assert self.texts_CD is not None
        return (
            torch.stack(
                [
                    self.texts_CD[hash(tuple(row[mask].tolist())) % len(self.texts_CD)]
                    for row, mask in zip(caps, cmasks, strict=True)
                ]
            ),
        )


def windows_of(feature_LD: torch.Tensor) -> torch.Tensor:
    rows = [feature_LD[start:end] for start, end in window_spans(len(feature_LD), STRIDE, WIDTH)]
    return torch.stack([nn.functional.pad(row, (0, 0, 0, WIDTH - len(row))) for row in rows])


def batch_of(feature_LD: torch.Tensor, targets: list[int], name: str) -> dict[str, Any]:
    vfeats = windows_of(feature_LD)
    caps = torch.ones(len(vfeats), 4, dtype=torch.long)
    return {
        "caps": caps[None],
        "cmasks": caps[None] > 0,
        "vfeats": vfeats[None],
        "vmasks": vfeats[None].any(-1),
        "video_targets": torch.tensor([targets]),
        "video_len": torch.tensor([len(feature_LD)]),
        "video_id": [name],
    }


def config(**more: Any) -> DatasetConfig:
    return DatasetConfig(sliding_window=STRIDE, sliding_window_size=WIDTH, **more)


def test_each_window_is_scored_once_and_the_best_class_of_the_mean_is_predicted() -> None:
    torch.manual_seed(0)
    model, targets = Echo(), torch.randint(0, 6, (2, 20)).tolist()
    features = [torch.randn(20, 6), torch.randn(5, 6)]
    batches = [batch_of(features[0], targets[0], "a"), batch_of(features[1], targets[1][:5], "b")]
    outputs = COINPredictor(config())(model, batches, CPU)
    assert model.num_windows == len(window_spans(20, STRIDE, WIDTH)) + 1
    scores = torch.cat(features).numpy()  # `Echo` says the same of a second in all its windows
    best = scores.argmax(1)
    np.testing.assert_array_equal(outputs.predictions, best)
    np.testing.assert_array_equal(outputs.targets, targets[0] + targets[1][:5])
    assert (outputs.video_ids, outputs.video_lengths) == (["a", "b"], [20, 5])
    numbers = METRIC.compute(outputs)
    right = best == outputs.targets
    assert numbers["frame_acc"] == pytest.approx(right.mean())
    assert numbers["step_frame_acc"] == pytest.approx(right[outputs.targets > 0].mean())
    best_step = scores[:, 1:].argmax(1) + 1
    expected = (best_step == outputs.targets)[outputs.targets > 0].mean()
    assert numbers["step_choice_acc"] == pytest.approx(expected)
    assert numbers["predicted_O"] == pytest.approx((best == 0).mean())
    assert numbers["true_O"] == pytest.approx((outputs.targets == 0).mean())


def test_overlapping_windows_are_averaged() -> None:
    feature = torch.zeros(11, 3)
    batch = batch_of(feature, [1] * 11, "a")
    # Second 4, seen by windows 0 (0..7) and 1 (3..10).
    batch["vfeats"][0, 0, 4] = torch.tensor([0.0, 3.0, 0.0])
    batch["vfeats"][0, 1, 1] = torch.tensor([0.0, -1.0, 1.5])
    outputs = COINPredictor(config())(Echo(), [batch], CPU)
    assert outputs.predictions[4] == 1  # (3 - 1) / 2 > 1.5 / 2
    # Others: three equal classes.
    assert outputs.credits.tolist() == pytest.approx([1 / 3] * 4 + [1] + [1 / 3] * 6)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_e2e_files(tmp_path_factory.mktemp("e2e"))


def zero_shot(files: Path) -> COINZSPredictor:
    names = {"test_path": f"{files}/data/coin/COIN.json", "bert_name": f"{files}/tinybert"}
    return COINZSPredictor(config(**names, max_video_len=WIDTH, max_len=WIDTH + 16))


def test_a_step_must_beat_the_most_similar_pair_of_steps(files: Path) -> None:
    torch.manual_seed(1)
    predictor = zero_shot(files)
    model = Echo(texts_CD=nn.functional.normalize(torch.randn(40, 5), dim=1))
    assert len(predictor.labels) == 12
    feature = torch.randn(30, 5)
    targets = torch.randint(0, 13, (30,)).tolist()
    batches = [batch_of(feature, targets, "a"), batch_of(feature[:7], targets[:7], "b")]
    outputs = predictor(model, batches, CPU)
    assert model.num_texts == 12  # once, not once per video
    labels = embed_labels(model, predictor.labels, predictor.config)
    pairs = [float(labels[i] @ labels[j]) for i in range(12) for j in range(12) if i != j]
    scores = feature @ labels.T
    expected = [int(row.argmax()) + 1 if row.max() > max(pairs) else 0 for row in scores]
    assert 0 < expected.count(0) < 30  # both happen
    np.testing.assert_array_equal(outputs.predictions, expected + expected[:7])
    assert outputs.num_classes == 13


def test_the_bound_leaves_a_step_and_itself_out() -> None:
    assert background_bound(torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, -2.0]])) == 3.0
    assert background_bound(torch.tensor([[3.0, 0.0]])) == float("-inf")


def test_equal_scores_for_all_classes_are_chance() -> None:
    targets = np.array([0, 0, 3, 1, 4])
    scores = np.ones((5, 5))
    credits = shared_credit(scores, targets)
    outputs = SegmentationOutputs(
        predictions=scores.argmax(1),
        targets=targets,
        credits=credits,
        num_classes=5,
        video_ids=["a"],
        step_credits=shared_credit(scores[:, 1:], targets - 1),
        video_lengths=[5],
    )
    numbers, chance = METRIC.compute(outputs), METRIC.chance(outputs)
    for name in ("frame_acc", "step_frame_acc", "step_choice_acc"):
        assert numbers[name] == pytest.approx(chance[name])
    assert (numbers["true_O"], chance["true_O"]) == (0.4, 0.4)
    summary = "frame accuracy: 0.2000 (predicted as O: 1.0000, truly O: 0.4000)"
    assert METRIC.summary(numbers) == summary


def test_a_model_without_logits_is_refused_by_name() -> None:
    class Towers(nn.Module):
        def forward(self, **_: Any) -> dict[str, torch.Tensor]:
            return {"pooled_video": torch.zeros(1, 1)}

    batch = batch_of(torch.ones(4, 3), [1] * 4, "a")
    message = r"`predictor: COINPredictor` needs .*ActionSegmentation, but .*pooled_video"
    with pytest.raises(ConfigError, match=message):
        COINPredictor(config())(Towers(), [batch], CPU)
    with pytest.raises(ConfigError, match=r"`dataset\.test_path` must be set for COINZSPredictor"):
        COINZSPredictor(config())


def test_nothing_finite_or_no_step_to_score() -> None:
    bad = batch_of(torch.full((4, 3), float("nan")), [1] * 4, "a")
    with pytest.raises(CheckpointError, match="4 of 4 seconds are not finite"):
        COINPredictor(config())(Echo(), [bad], CPU)
    background = batch_of(torch.ones(4, 3), [0] * 4, "a")
    only_background = COINPredictor(config())(Echo(), [background], CPU)
    with pytest.raises(DataError, match="None of the 4 test seconds has a step"):
        METRIC.compute(only_background)
