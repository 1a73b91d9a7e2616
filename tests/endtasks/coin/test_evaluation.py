"""Step segmentation against plain loops, with a model whose states are the features."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.endtasks.coin.data import step_labels
from mmpt.endtasks.coin.evaluation import (
    COINActionSegmentationMetric,
    COINPredictor,
    COINZSPredictor,
    SegmentationOutputs,
    background_bound,
)
from mmpt.errors import CheckpointError, ConfigError
from mmpt.evaluators.functional import shared_credit
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.processors.window_aligner import WindowAligner, window_spans
from tests.support.e2e_data import make_e2e_files

WIDTH, STRIDE = 8, 3
CPU = torch.device("cpu")
METRIC = COINActionSegmentationMetric()


class Echo(nn.Module):
    """A model whose logits and states of the video tower are the features.

    The vector of a text is a scaled sum of the embeddings of its words.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.words = nn.Embedding(400, 5)
        self.num_texts = 0

    def forward(self, vfeats: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        return {"logits": vfeats[0] * self.scale}

    def forward_video(self, vfeats: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return nn.functional.pad(vfeats, (0, 0, 1, 1))

    def forward_text(
        self, caps: torch.Tensor, cmasks: torch.Tensor
    ) -> tuple[torch.Tensor]:
        self.num_texts += len(caps)
        words = self.words(caps) * cmasks[..., None]
        return (words.sum(dim=1) / 5,)


def batch_of(feature_LD: torch.Tensor, targets: list[int], name: str) -> dict[str, Any]:
    num_seconds, width = feature_LD.shape
    spans = window_spans(num_seconds, STRIDE, WIDTH)
    vfeats = torch.zeros(1, len(spans), WIDTH, width)
    for window, (start, end) in zip(vfeats[0], spans, strict=True):
        window[: end - start] = feature_LD[start:end]
    caps = torch.ones(1, len(spans), 4, dtype=torch.long)
    return {
        "caps": caps,
        "cmasks": caps > 0,
        "vfeats": vfeats,
        "vmasks": vfeats.any(-1),
        "video_targets": torch.tensor([targets]),
        "video_len": torch.tensor([num_seconds]),
        "video_id": [name],
    }


def config(**more: Any) -> WindowAligner.Config:
    return WindowAligner.Config(
        sliding_window=STRIDE, sliding_window_size=WIDTH, **more
    )


def test_the_best_class_of_every_second_is_predicted() -> None:
    torch.manual_seed(0)
    targets = torch.randint(0, 6, (25,))
    # `Echo` returns the same for a second in all its windows.
    feature = torch.randn(25, 6)
    first = batch_of(feature[:20], targets[:20].tolist(), "a")
    second = batch_of(feature[20:], targets[20:].tolist(), "b")
    outputs = COINPredictor(config())(Echo(), [first, second], CPU)
    scores = feature.numpy()
    best = scores.argmax(1)
    np.testing.assert_array_equal(outputs.predictions, best)
    np.testing.assert_array_equal(outputs.targets, targets)
    assert (outputs.video_ids, outputs.video_lengths) == (["a", "b"], [20, 5])
    right = best == outputs.targets
    with_step = outputs.targets > 0
    right_step = scores[:, 1:].argmax(1) + 1 == outputs.targets
    expected = {
        "frame_acc": right.mean(),
        "step_frame_acc": right[with_step].mean(),
        "step_choice_acc": right_step[with_step].mean(),
        "predicted_O": (best == 0).mean(),
        "true_O": 1 - with_step.mean(),
    }
    assert METRIC.compute(outputs) == pytest.approx(expected)


def test_overlapping_windows_are_averaged() -> None:
    batch = batch_of(torch.zeros(11, 3), [1] * 11, "a")
    # Second 4 is in windows 0 (0 to 7) and 1 (3 to 10).
    batch["vfeats"][0, 0, 4] = torch.tensor([0.0, 3.0, 0.0])
    batch["vfeats"][0, 1, 1] = torch.tensor([0.0, -1.0, 1.5])
    outputs = COINPredictor(config())(Echo(), [batch], CPU)
    assert outputs.predictions[4] == 1  # (3 - 1) / 2 > 1.5 / 2
    expected = np.full(11, 1 / 3)  # three equal classes
    expected[4] = 1
    assert outputs.credits == pytest.approx(expected)


def test_a_step_must_score_higher_than_the_most_similar_pair_of_steps(
    tmp_path: Path,
) -> None:
    torch.manual_seed(1)
    files = make_e2e_files(tmp_path)
    names = {
        "test_path": f"{files}/data/coin/COIN.json",
        "bert_name": f"{files}/tinybert",
    }
    predictor = COINZSPredictor(
        config(**names, max_video_len=WIDTH, max_len=WIDTH + 16)
    )
    model = Echo()
    feature = 3 * torch.randn(30, 5)
    targets = torch.randint(0, 13, (30,)).tolist()
    batches = [batch_of(feature, targets, "a"), batch_of(feature[:7], targets[:7], "b")]
    outputs = predictor(model, batches, CPU)
    assert model.num_texts == 12  # once, not once per video
    tokenizer = load_tokenizer(names["bert_name"])
    labels = []
    for cls, *ids in tokenizer(step_labels(names["test_path"]))["input_ids"]:
        caps = torch.tensor([[cls, 102, *ids]])
        (label,) = model.forward_text(caps, caps > 0)[0].detach()
        labels.append(label)
    bound = max(float(a @ b) for a, b in itertools.permutations(labels, 2))
    expected = []
    for second in feature:
        scores = [float(second @ label) for label in labels]
        best = max(scores)
        expected.append(scores.index(best) + 1 if best > bound else 0)
    assert 0 < expected.count(0) < 30  # both happen
    np.testing.assert_array_equal(outputs.predictions, expected + expected[:7])
    assert outputs.num_classes == 13


def test_the_bound_ignores_the_similarity_of_a_step_with_itself() -> None:
    assert background_bound(torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, -2.0]])) == 3.0
    assert background_bound(torch.tensor([[3.0, 0.0]])) == float("-inf")


def test_equal_scores_for_all_classes_are_chance() -> None:
    targets = np.array([0, 0, 3, 1, 4])
    scores = np.ones((5, 5))
    outputs = SegmentationOutputs(
        predictions=scores.argmax(1),
        targets=targets,
        credits=shared_credit(scores, targets),
        step_credits=shared_credit(scores[:, 1:], targets - 1),
        num_classes=5,
        video_ids=["a"],
        video_lengths=[5],
    )
    numbers = METRIC.compute(outputs)
    chance = METRIC.chance(outputs)
    for name in ("frame_acc", "step_frame_acc", "step_choice_acc", "true_O"):
        assert numbers[name] == pytest.approx(chance[name])


def test_unsuitable_models_are_refused() -> None:
    class Towers(nn.Module):
        def forward(self, **_: Any) -> dict[str, torch.Tensor]:
            return {"pooled_video": torch.zeros(1, 1)}

    batch = batch_of(torch.ones(4, 3), [1] * 4, "a")
    message = (
        r"`predictor: COINPredictor` needs .*ActionSegmentation, but .*pooled_video"
    )
    with pytest.raises(ConfigError, match=message):
        COINPredictor(config())(Towers(), [batch], CPU)
    batch["vfeats"] *= float("nan")
    with pytest.raises(CheckpointError, match="4 of 4 seconds are not finite"):
        COINPredictor(config())(Echo(), [batch], CPU)


def test_the_rows_of_a_second_are_averaged() -> None:
    targets = [1, 2, 2, 0, 1, 1, 2]
    feature = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    plain = COINPredictor(config())(Echo(), [batch_of(feature, targets, "a")], CPU)
    # Two rows a second, whose means are the rows above.
    noise = torch.tensor([1.0, -1.0]).repeat(7)[:, None] * torch.randn(3)
    batch = batch_of(feature.repeat_interleave(2, dim=0) + noise, targets, "a")
    at_rate = config(feature_fps=2)
    batch["vfeats"] = _windows(feature.repeat_interleave(2, dim=0) + noise)
    outputs = COINPredictor(at_rate)(Echo(), [batch], CPU)
    np.testing.assert_array_equal(outputs.predictions, plain.predictions)
    assert outputs.video_lengths == [7]


def _windows(rows_RD: torch.Tensor) -> torch.Tensor:
    """Cuts two rows a second into windows of the same seconds as `batch_of`."""
    spans = window_spans(len(rows_RD), 2 * STRIDE, 2 * WIDTH)
    vfeats = torch.zeros(1, len(spans), 2 * WIDTH, rows_RD.shape[1])
    for window, (start, end) in zip(vfeats[0], spans, strict=True):
        window[: end - start] = rows_RD[start:end]
    return vfeats
