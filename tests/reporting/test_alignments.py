"""The heat maps hold what the inference interface computes for the same video and sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli.scoring import predict
from mmpt.config import load_config
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.reporting import Run
from mmpt.reporting.alignments import align_video, spread
from mmpt.reporting.retrieval import _figures
from mmpt.tasks import Task
from tests.jobs import ROOT, SCORES


@pytest.fixture
def run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(ROOT)
    overrides = [f"dataset.bert_name={corpus}/bert", f"dataset.vfeat_dir={corpus}/feat"]
    overrides += [
        f"dataset.test_path={corpus}/val_clips.json",
        f"fairseq.common_eval.path={tmp_path}/checkpoint.pt",
    ]
    config = load_config(SCORES, [*overrides, "fairseq.dataset.num_workers=0"])
    torch.manual_seed(0)
    torch.save(
        Task.from_config(config).build_model(pretrained=False).state_dict(),
        tmp_path / "checkpoint.pt",
    )
    return predict(config, device=torch.device("cpu"), keep_results=False)


def test_a_figure_is_what_the_model_aligns(run: Run) -> None:
    captions = [text for _, text in run.test_items()]
    figures = [figure for figure in _figures(run.outputs, run, captions) if figure]  # type: ignore[arg-type]
    assert len(figures) == 4
    model = MMPTModel(run.model, run.config.dataset, run.config.model)  # type: ignore[arg-type]
    for figure in figures[:2]:
        places = [
            place
            for place, ((video, *_), _) in enumerate(run.test_items())
            if video == figure.video_id
        ]
        assert list(figure.sentences) == [captions[place] for place in places]
        assert figure.truth == [run.item(place)[0][1:] for place in places]
        features = run.dataset.video((figure.video_id, 0, run.item(places[-1])[0][2]))
        aligned = model.align(
            torch.from_numpy(np.array(features, dtype=np.float32)), figure.sentences, monotone=True
        )
        # Measured 1e-7.
        np.testing.assert_allclose(figure.similarity, aligned.similarity, atol=1e-5)
        np.testing.assert_allclose(figure.plan, aligned.plan, atol=1e-5)
        assert figure.found == aligned.spans


def test_a_model_of_another_kind_has_no_figure(run: Run) -> None:
    object.__setattr__(run, "model", torch.nn.Identity())
    assert (
        align_video(run, "a", ("a", 0, 1), ["x"], np.zeros((1, 4), dtype=np.float32), [None])
        is None
    )


@pytest.mark.parametrize(
    ("num", "most", "wanted"), [(0, 3, []), (2, 3, [0, 1]), (9, 3, [0, 4, 8]), (9, 1, [0])]
)
def test_spread(num: int, most: int, wanted: list[int]) -> None:
    assert spread(range(num), most) == wanted
