"""Tests that heat maps show the alignment that the inference interface computes."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.cli.scoring import predict
from mmpt.config import load_config
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.reporting import EvaluationRun, prediction_sections
from mmpt.reporting.alignments import align_video, spread
from mmpt.reporting.retrieval import _heat_maps
from mmpt.tasks import Task
from tests.support.jobs import SCORES
from tests.support.paths import ROOT
from tests.support.sample_runs import every_kind


@pytest.fixture
def run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvaluationRun:
    monkeypatch.chdir(ROOT)
    overrides = [
        f"dataset.bert_name={corpus}/bert",
        f"dataset.vfeat_dir={corpus}/feat",
        f"dataset.test_path={corpus}/val_clips.json",
        f"fairseq.common_eval.path={tmp_path}/checkpoint.pt",
        "fairseq.dataset.num_workers=0",
    ]
    config = load_config(SCORES, overrides)
    torch.manual_seed(0)
    model = Task.from_config(config).build_model(pretrained=False)
    torch.save(model.state_dict(), tmp_path / "checkpoint.pt")
    return predict(config, device=torch.device("cpu"), keep_results=False)


def overlap(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Returns the intersection over union of two spans of whole seconds."""
    seconds_a, seconds_b = set(range(*a)), set(range(*b))
    return len(seconds_a & seconds_b) / len(seconds_a | seconds_b)


@pytest.mark.slow
def test_figures_show_the_alignment_of_the_model(run: EvaluationRun) -> None:
    captions = [text for _, text in run.test_items()]
    figures = _heat_maps(run.outputs, run, captions)
    assert len(figures) == 4
    model = MMPTModel(run.model, run.config.dataset, run.config.model)
    for title, svg in figures[:2]:
        video = title.partition(":")[0]
        words, truth = [], []
        for (name, start, end), text in run.test_items():
            if name == video:
                words.append(text)
                truth.append((start, end))
        features = run.dataset.video((video, 0, truth[-1][1]))
        aligned = model.align(np.array(features), words, monotone=True)
        overlaps = [overlap(*pair) for pair in zip(truth, aligned.spans, strict=True)]
        assert title.startswith(
            f"{video}: {len(words)} sentences, {len(features)} s, mean"
        )
        *_, shown = title.split()
        # Figures show two decimals.
        assert float(shown) == pytest.approx(np.mean(overlaps), abs=0.006)
        assert words[0][:20] in svg


@pytest.mark.parametrize("fps", [1, 2])
def test_only_the_part_of_a_video_that_has_sentences_is_shown(
    run: EvaluationRun, fps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = every_kind()["alignments"]
    video_key, _ = run.item(0)
    rows = np.resize(run.dataset.video(video_key), (60 * fps, 512))
    dataset = SimpleNamespace(meta=made.dataset.meta, video=lambda _: rows)
    # A window has the same number of slots for any rate, because the model has this number.
    settings = {"feature_fps": fps, "max_video_len": 16 // fps}
    section = run.config.dataset.model_copy(update=settings)
    config = run.config.model_copy(update={"dataset": section})
    scored = dataclasses.replace(made, dataset=dataset, model=run.model, config=config)
    shown_rows = []
    align = MMPTModel.align

    def record(self: MMPTModel, video: np.ndarray, *args: Any, **options: Any) -> Any:
        shown_rows.append(len(video))
        return align(self, video, *args, **options)

    monkeypatch.setattr(MMPTModel, "align", record)
    alignments, _ = prediction_sections(made.outputs, scored)
    first, second = alignments.data["maps"]
    assert shown_rows == [51 * fps, 51 * fps]
    # The last sentence ends at 50 s.
    assert first.startswith("one: 4 sentences, 51 s, mean overlap")
    assert second.startswith("two: 4 sentences, 51 s, mean overlap")


def test_a_model_without_two_towers_has_no_figure(run: EvaluationRun) -> None:
    object.__setattr__(run, "model", torch.nn.Identity())
    assert align_video(run, "a", ("a", 0, 1), ["x"], [None]) is None


@pytest.mark.parametrize(
    ("num", "most", "wanted"),
    [(0, 3, []), (2, 3, [0, 1]), (9, 3, [0, 4, 8]), (9, 1, [0])],
)
def test_spread_returns_items_at_even_distances(
    num: int, most: int, wanted: list[int]
) -> None:
    assert spread(range(num), most) == wanted
