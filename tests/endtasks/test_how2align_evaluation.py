"""HTM-Align's predictor against one window at a time, and its metric on similarities whose right
answers are known.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.batch import Split
from mmpt.config import load_config
from mmpt.config.schema import DatasetConfig
from mmpt.datasets import collate
from mmpt.endtasks.how2align import evaluation as how2align
from mmpt.endtasks.how2align.data import (
    How2AlignAligner,
    How2AlignTextProcessor,
    Sentence,
    comparisons,
)
from mmpt.endtasks.how2align.evaluation import (
    AlignedVideo,
    How2AlignMetric,
    How2AlignOutputs,
    How2AlignPredictor,
)
from mmpt.errors import CheckpointError, DataError
from mmpt.models.checkpoint import load_weights
from mmpt.tasks import Task
from mmpt.utils.rng import item_rng
from tests.models.tiny_model import F, T, make_run

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path: Path) -> DatasetConfig:
    """Of the recorded tiny checkpoint: windows of 16 seconds."""
    return DatasetConfig(
        bert_name=str(make_run(tmp_path / "run") / "bert"),
        max_video_len=F,
        max_len=F + T,
        sliding_window=4,
        sliding_window_size=F,
    )


@pytest.fixture
def model(config: DatasetConfig, tmp_path: Path) -> torch.nn.Module:
    run = tmp_path / "run"
    model = Task.from_config(load_config(run / "config.yaml")).build_model(pretrained=False)
    load_weights(model, run / "checkpoint_best.pt")
    return model


def sentences() -> list[Sentence]:
    texts = ("cut the onion", "hello", "stir", "let me know what you think of it all", "fry it")
    return [Sentence(k % 2 == 0, 7.0 * k, 7.0 * k + 3, text) for k, text in enumerate(texts)]


def item(config: DatasetConfig, video_id: str, num_seconds: int):
    feature = np.random.default_rng(num_seconds).normal(size=(num_seconds, 512)).astype(np.float16)
    text = How2AlignTextProcessor(config, Split.TEST)(sentences())
    return feature, How2AlignAligner(config, Split.TEST)(video_id, feature, text, item_rng(0, 0, 0))


def test_windows_in_batches_are_windows_one_by_one(
    config: DatasetConfig, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(how2align, "ROWS_AT_ONCE", 3)
    feature, aligner_item = item(config, "v", 53)
    outputs = How2AlignPredictor(config)(model, [collate([aligner_item])], CPU)
    (video,) = outputs.videos
    total, count = np.zeros((5, 53)), np.zeros((5, 53))
    model.eval()
    for start, first, last in comparisons(sentences(), 53, 4, F):
        rows = torch.zeros(1, F, 512)
        length = min(F, 53 - start)
        rows[0, :length] = torch.from_numpy(feature[start : start + length].astype(np.float32))
        for k in range(first, last):
            caps, cmasks = aligner_item["caps"][k : k + 1], aligner_item["cmasks"][k : k + 1]
            with torch.no_grad():
                states = model.forward_video(
                    rows, torch.arange(F)[None] < length, caps, cmasks, True
                )[0, 1:-1]
                text = model.forward_text(caps, cmasks)[0][0]
            for second in range(length):
                cosine = torch.cosine_similarity(states[second], text, dim=0)
                total[k, start + second] += float(cosine)
                count[k, start + second] += 1
    np.testing.assert_array_equal(video.covered, count > 0)
    assert 0 < video.covered.sum() < video.covered.size
    # Measured 3e-7.
    np.testing.assert_allclose(video.similarity, total / np.maximum(count, 1), atol=2e-6)
    arrays = outputs.arrays()
    assert arrays["similarity"].shape == (5 * 53,)
    assert arrays["num_seconds"].tolist() == [53]


def test_a_video_too_short_for_a_window_is_never_compared(
    config: DatasetConfig, model: torch.nn.Module
) -> None:
    batches = [collate([item(config, "short", 8)[1]]), collate([item(config, "long", 40)[1]])]
    outputs = How2AlignPredictor(config)(model, batches, CPU)
    short, long = outputs.videos
    assert not short.covered.any()
    assert long.covered.any()
    found = How2AlignMetric().compute(outputs)
    assert found["never-compared"] >= 0.5
    assert 0 <= found["AUC"] <= 1


def test_a_diverged_checkpoint_is_refused(config: DatasetConfig, model: torch.nn.Module) -> None:
    with torch.no_grad():
        model.video_encoder.bert.encoder.layer[-1].output.LayerNorm.bias.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="seconds are not finite"):
        How2AlignPredictor(config)(model, [collate([item(config, "v", 40)[1]])], CPU)


def video(
    similarity: np.ndarray, aligned: list[bool], spans: list[tuple[float, float]]
) -> AlignedVideo:
    return AlignedVideo(
        "v",
        similarity.astype(np.float32),
        np.ones(similarity.shape, bool),
        np.array(aligned),
        np.array(spans, dtype=np.float64),
    )


def test_known_answers() -> None:
    similarity = np.full((4, 10), -0.5)
    similarity[0, 4], similarity[1, 8], similarity[2, 5], similarity[3, 1] = 0.9, 0.8, 0.1, 0.85
    outputs = How2AlignOutputs(
        videos=[video(similarity, [True, True, False, False], [(3.5, 5), (1, 2), (0, 1), (8, 9)])]
    )
    found = How2AlignMetric().compute(outputs)
    # The second sentence is found 6 s late.
    assert found["Recall"] == found["Recall-corrected"] == 0.5
    # Of four pairs, 0.8 against 0.85 is wrong.
    assert found["AUC"] == found["AUC-corrected"] == 0.75
    chance = How2AlignMetric().chance(outputs)
    assert chance["Recall"] == pytest.approx((3 + 2) / 2 / 10)
    assert chance["AUC"] == 0.5
    assert "Recall: 0.5000 - AUC: 0.7500" in How2AlignMetric().summary(found)


def test_a_model_without_an_opinion_is_at_chance_in_the_corrected_form() -> None:
    rng = np.random.default_rng(0)
    spans = [tuple(sorted(rng.uniform(0, 30, 2))) for _ in range(20)]
    outputs = How2AlignOutputs(
        videos=[video(np.zeros((20, 30)), [k % 3 == 0 for k in range(20)], spans)]
    )
    found, chance = How2AlignMetric().compute(outputs), How2AlignMetric().chance(outputs)
    assert found["Recall-corrected"] == pytest.approx(chance["Recall-corrected"], abs=1e-12)
    assert found["AUC-corrected"] == chance["AUC-corrected"] == 0.5


def test_sentences_of_one_kind_only_have_no_numbers() -> None:
    outputs = How2AlignOutputs(videos=[video(np.ones((2, 5)), [True, True], [(0, 1), (2, 3)])])
    with pytest.raises(DataError, match="2 of 2 are"):
        How2AlignMetric().compute(outputs)
