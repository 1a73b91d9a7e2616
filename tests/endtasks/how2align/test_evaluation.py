"""HTM-Align's predictor against single windows, and its metric on scores with known results."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from mmpt.batch import Split
from mmpt.config import load_config
from mmpt.datasets import collate
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
    by_second,
)
from mmpt.errors import CheckpointError, DataError
from mmpt.models.checkpoint import load_weights
from mmpt.tasks import Task
from mmpt.utils.rng import item_rng
from tests.support.tiny_run import F, T, make_run

METRIC = How2AlignMetric()


class Tiny(NamedTuple):
    """The recorded tiny checkpoint, with windows of 16 seconds."""

    config: How2AlignAligner.Config
    model: Any

    def predict(self, *items: Any) -> How2AlignOutputs:
        loader = [collate([item]) for item in items]
        return How2AlignPredictor(self.config)(self.model, loader, torch.device("cpu"))


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    run = make_run(tmp_path / "run")
    task = Task.from_config(load_config(run / "config.yaml"))
    model = task.build_model(pretrained=False)
    load_weights(model, run / "checkpoint_best.pt")
    config = How2AlignAligner.Config(
        bert_name=str(run / "bert"),
        max_video_len=F,
        max_len=F + T,
        sliding_window=4,
        sliding_window_size=F,
    )
    return Tiny(config, model)


def sentences() -> list[Sentence]:
    return [
        Sentence(True, 0.0, 3.0, "cut the onion"),
        Sentence(False, 7.0, 10.0, "hello"),
        Sentence(True, 14.0, 17.0, "stir"),
        Sentence(False, 21.0, 24.0, "let me know what you think of it all"),
        Sentence(True, 28.0, 31.0, "fry it"),
    ]


def item(config: How2AlignAligner.Config, video_id: str, num_seconds: int):
    rng = np.random.default_rng(num_seconds)
    feature = rng.normal(size=(num_seconds, 512)).astype(np.float16)
    text = How2AlignTextProcessor(config, Split.TEST)(sentences())
    aligner = How2AlignAligner(config, Split.TEST)
    return feature, aligner(video_id, feature, text, item_rng(0, 0, 0))


def test_batched_windows_equal_single_windows(tiny: Tiny) -> None:
    feature, aligner_item = item(tiny.config, "v", 53)
    (video,) = tiny.predict(aligner_item).videos
    total = np.zeros((5, 53))
    count = np.zeros((5, 53))
    for start, first, last in comparisons(sentences(), 53, 4, F):
        window = torch.from_numpy(feature[start : start + F])
        length = len(window)
        rows = torch.zeros(1, F, 512)
        rows[0, :length] = window
        mask = torch.arange(F)[None] < length
        for k in range(first, last):
            text = aligner_item["caps"][k : k + 1], aligner_item["cmasks"][k : k + 1]
            with torch.no_grad():
                (states,) = tiny.model.forward_video(rows, mask, *text, True)
                (vector,), *_ = tiny.model.forward_text(*text)
            for second in range(length):
                state = states[1 + second]  # [CLS] is first
                cosine = torch.cosine_similarity(state, vector, dim=0)
                total[k, start + second] += float(cosine)
                count[k, start + second] += 1
    np.testing.assert_array_equal(video.covered, count > 0)
    assert 0 < video.covered.sum() < video.covered.size
    expected = total / np.maximum(count, 1)
    np.testing.assert_allclose(video.similarity, expected, atol=2e-6)  # 3e-7


def test_a_video_too_short_for_a_window_is_never_compared(tiny: Tiny) -> None:
    _, short_item = item(tiny.config, "short", 8)
    _, long_item = item(tiny.config, "long", 40)
    outputs = tiny.predict(short_item, long_item)
    short, long = outputs.videos
    assert not short.covered.any()
    assert long.covered.any()
    found = METRIC.compute(outputs)
    assert found["never-compared"] >= 0.5
    assert 0 <= found["AUC"] <= 1
    assert outputs.arrays()["similarity"].shape == (5 * 48,)
    with pytest.raises(
        DataError, match="video none: a video must be at least a second long"
    ):
        item(tiny.config, "none", 0)


def test_a_diverged_checkpoint_is_refused(tiny: Tiny) -> None:
    last_layer = tiny.model.video_encoder.bert.encoder.layer[-1]
    with torch.no_grad():
        last_layer.output.LayerNorm.bias.fill_(float("nan"))
    _, aligner_item = item(tiny.config, "v", 40)
    with pytest.raises(CheckpointError, match="seconds are not finite"):
        tiny.predict(aligner_item)


def outputs_of(
    similarity: np.ndarray, aligned: list[bool], spans: Any
) -> How2AlignOutputs:
    video = AlignedVideo(
        video_id="v",
        similarity=similarity.astype(np.float32),
        covered=np.ones(similarity.shape, bool),
        aligned=np.array(aligned),
        spans_s=np.array(spans, float),
    )
    return How2AlignOutputs(videos=[video])


def test_known_answers() -> None:
    similarity = np.full((4, 10), -0.5)
    similarity[0, 4] = 0.9
    similarity[1, 8] = 0.8
    similarity[2, 5] = 0.1
    similarity[3, 1] = 0.85
    spans = [(3.5, 5), (1, 2), (0, 1), (8, 9)]
    outputs = outputs_of(similarity, [True, True, False, False], spans)
    found = METRIC.compute(outputs)
    chance = METRIC.chance(outputs)
    # The second sentence is found 6 s late.
    assert found["Recall"] == found["Recall-corrected"] == 0.5
    # One of four pairs, 0.8 against 0.85, is wrong.
    assert found["AUC"] == found["AUC-corrected"] == 0.75
    assert chance["Recall"] == pytest.approx((3 + 2) / 2 / 10)
    assert chance["AUC"] == 0.5
    assert METRIC.summary(found).startswith("Recall: 0.5000 - AUC: 0.7500")


def test_constant_scores_are_at_chance_in_the_corrected_form() -> None:
    times = np.random.default_rng(0).uniform(0, 30, (20, 2))
    spans = np.sort(times, axis=1)
    aligned = [k % 3 == 0 for k in range(20)]
    outputs = outputs_of(np.zeros((20, 30)), aligned, spans)
    found = METRIC.compute(outputs)
    chance = METRIC.chance(outputs)
    assert found["Recall-corrected"] == pytest.approx(
        chance["Recall-corrected"], abs=1e-12
    )
    assert found["AUC-corrected"] == chance["AUC-corrected"] == 0.5


def test_the_auc_is_undefined_if_all_sentences_are_aligned() -> None:
    outputs = outputs_of(np.ones((2, 5)), [True, True], [(0, 1), (2, 3)])
    assert np.isnan(METRIC.compute(outputs)["AUC"])


def test_the_covered_rows_of_a_second_are_averaged() -> None:
    similarity = np.array([[0.5, 0.25, 1.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    covered = np.array([[True, True, True, False, False, False]])
    means, any_covered = by_second(similarity, covered, 2)
    assert means.tolist() == [[0.375, 1.0, 0.0]]
    assert any_covered.tolist() == [[True, True, False]]
    same, _ = by_second(similarity, covered, 1)
    assert same.tolist() == similarity.tolist()
