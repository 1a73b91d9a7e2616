"""What keeps an evaluation from being scored is said before the first checkpoint is, and leaves no
file behind.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmpt.cli import predict, scoring
from mmpt.config import load_config
from mmpt.errors import CheckpointError, ConfigError, DataError

CPU = torch.device("cpu")


@pytest.fixture
def unscored(scored: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The evaluation `scored`, of which no checkpoint may be loaded."""

    def load_weights(*_: object) -> None:
        raise AssertionError("a checkpoint was loaded to be scored")

    monkeypatch.setattr(scoring, "load_weights", load_weights)
    return scored


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["predictor=QAPredictor", "metric=QAMetric"],
            "needs items with a 2-D `caps` (found: 1-D)",
        ),
        (["predictor=DiDeMoPredictor", "metric=DiDeMoMetric"], "a 2-D `times` (found: none)"),
        (
            ["predictor=BGRetrievalPredictor", "metric=FullVideoBGRetrievalMetric"],
            "a 3-D `vfeats` (found: 2-D)",
        ),
        (
            ["dataset.aligner=MSRVTTQAAligner"],
            "must belong together, but cannot make an item (ValueError",
        ),
        (["dataset.text_processor=MSRVTTQATextProcessor"], "must belong together"),
        (
            ["dataset.text_processor=YoucookFullVideoBGTextProcessor"],
            "takes one text per test item",
        ),
        (["dataset.aligner=os.getcwd"], "the aligner `os.getcwd` must be a class"),
    ],
)
def test_parts_that_do_not_belong_together(
    unscored: Path, overrides: list[str], message: str
) -> None:
    settings = [
        f"{key}={value}"
        for key, value in (("fairseq.dataset.batch_size", 1), ("dataset.max_video_len", 30))
    ]
    config = load_config(unscored, [*settings, "dataset.max_len=62", *overrides])
    with pytest.raises(ConfigError) as error:
        scoring.predict(config, device=CPU)
    assert message in str(error.value)
    assert not (unscored.parent / "run" / "results").exists()


def test_a_model_of_clips_does_not_take_whole_videos(scored: Path) -> None:
    names = {
        "meta_processor": "How2FullVideoMetaProcessor",
        "video_processor": "How2VideoProcessor",
        "text_processor": "YoucookFullVideoBGTextProcessor",
        "aligner": "YoucookFullVideoBGAligner",
        "sliding_window": 16,
        "sliding_window_size": 16,
    }
    other = [
        "fairseq.dataset.batch_size=1",
        "predictor=BGRetrievalPredictor",
        "metric=FullVideoBGRetrievalMetric",
    ]
    config = load_config(
        scored, [*other, *(f"dataset.{key}={value}" for key, value in names.items())]
    )
    with pytest.raises(
        ConfigError,
        match=r"`model.model_cls: MMFusionSeparate` takes clips, float \[N, F, I\], but",
    ):
        scoring.predict(config, device=CPU)


def test_a_checkpoint_that_is_not_there_is_told_before_the_others_are_scored(
    unscored: Path,
) -> None:
    paths = [unscored.parent / "run" / name for name in ("checkpoint_b.pt", "checkpoint_c.pt")]
    config = load_config(unscored).with_option("common_eval", "path", list(map(str, paths)))
    with pytest.raises(CheckpointError, match=r"checkpoint_c\.pt: no such checkpoint"):
        scoring.predict(config, device=CPU)


@pytest.mark.parametrize("content", ["", "[{", "{}", '[{"a": 1}]'])
def test_a_damaged_results_file_is_told_first_and_kept(unscored: Path, content: str) -> None:
    path = unscored.parent / "run" / "results" / "results.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(DataError, match=r"results\.json: not .* move"):
        scoring.predict(load_config(unscored), device=CPU)
    assert path.read_text() == content


def test_results_that_cannot_be_written_are_told_first(unscored: Path) -> None:
    (unscored.parent / "file").touch()
    config = load_config(unscored, [f"eval.save_path={unscored.parent}/file/results"])
    with pytest.raises(DataError, match=r"file is no folder to write in. Correct `eval.save_path`"):
        scoring.predict(config, device=CPU)


def test_a_folder_of_videos_that_is_not_there(
    unscored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(unscored), "--device", "cpu", "--videos", "/no/such"]) == 2
    assert (
        "/no/such: no such folder. Name where the test set's videos are with `--videos`."
        in capsys.readouterr().err
    )


def test_a_device_without_numbers(unscored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.main([str(unscored), "--device", "meta"]) == 2
    assert "--device meta: not a device of this machine" in capsys.readouterr().err


def test_a_checkpoint_named_twice_is_scored_once_and_predictions_are_kept_by_task(
    scored: Path,
) -> None:
    run = scored.parent / "run"
    path = run / "checkpoint_b.pt"
    config = load_config(scored).with_option(
        "common_eval", "path", [str(path), f"{run}/../run/checkpoint_b.pt"]
    )
    scoring.predict(config, device=CPU, keep_predictions=True)
    rows = json.loads((run / "results" / "results.json").read_text())
    assert [row["checkpoint"] for row in rows] == [str(path)]
    assert [file.name for file in (run / "results").glob("*.npz")] == [
        "scores-run-checkpoint_b.npz"
    ]


def test_predictions_have_names_of_their_own() -> None:
    assert scoring.prediction_names("vtt", [Path("a/c1.pt"), Path("a/c2.pt")]) == [
        "vtt-a-c1",
        "vtt-a-c2",
    ]
    assert scoring.prediction_names("vtt", [Path("/x/a/c.pt"), Path("/y/a/c.pt")]) == [
        "vtt-x-a-c",
        "vtt-y-a-c",
    ]
