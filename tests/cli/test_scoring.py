"""Mistakes in an evaluation are reported before the first checkpoint is scored.

No file is written then.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from mmpt.cli import scoring
from mmpt.cli.scoring_checks import check_checkpoint_fits
from mmpt.config import load_config
from mmpt.errors import CheckpointError, ConfigError, DataError
from tests.support.tiny_bert import tiny_bert
from tests.support.tiny_run import F, make_run

CPU = torch.device("cpu")


@pytest.fixture
def unscored(scored: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The evaluation `scored`, in which loading a checkpoint fails the test."""

    def load_weights(*_: object) -> None:
        raise AssertionError("a checkpoint was loaded to be scored")

    monkeypatch.setattr(scoring, "load_weights", load_weights)
    return scored


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "predictor=QAPredictor metric=QAMetric",
            "needs items with a 2-D `caps` (found: 1-D)",
        ),
        (
            "predictor=DiDeMoPredictor metric=DiDeMoMetric",
            "a 2-D `times` (found: none)",
        ),
        (
            "predictor=BGRetrievalPredictor metric=FullVideoBGRetrievalMetric",
            "a 3-D `vfeats` (found: 2-D)",
        ),
        (
            "dataset.aligner=MSRVTTQAAligner",
            "must belong together, but cannot make an item (ValueError",
        ),
        ("dataset.text_processor=MSRVTTQATextProcessor", "must belong together"),
        (
            "dataset.text_processor=YoucookFullVideoBGTextProcessor",
            "takes one text per test item",
        ),
        ("dataset.aligner=os.getcwd", "the aligner `os.getcwd` must be a subclass of"),
    ],
)
def test_incompatible_parts_are_an_error(
    unscored: Path, overrides: str, message: str
) -> None:
    settings = (
        "fairseq.dataset.batch_size=1 dataset.max_video_len=30 dataset.max_len=62"
    )
    config = load_config(unscored, [*settings.split(), *overrides.split()])
    with pytest.raises(ConfigError) as error:
        scoring.predict(config, device=CPU)
    assert message in str(error.value)
    assert not (unscored.parent / "run" / "results").exists()


def test_a_model_of_clips_does_not_accept_whole_videos(scored: Path) -> None:
    overrides = (
        "fairseq.dataset.batch_size=1 predictor=BGRetrievalPredictor "
        "metric=FullVideoBGRetrievalMetric dataset.meta_processor=How2FullVideoMetaProcessor "
        "dataset.video_processor=How2VideoProcessor "
        "dataset.text_processor=YoucookFullVideoBGTextProcessor "
        "dataset.aligner=YoucookFullVideoBGAligner dataset.sliding_window=16 "
        "dataset.sliding_window_size=16"
    )
    config = load_config(scored, overrides.split())
    message = r"`model.model_cls: MMFusionSeparate` takes clips, float \[N, F, I\], but"
    with pytest.raises(ConfigError, match=message):
        scoring.predict(config, device=CPU)


def test_a_missing_checkpoint_is_reported_before_the_others_are_scored(
    unscored: Path,
) -> None:
    paths = [f"{unscored.parent}/run/checkpoint_{name}.pt" for name in "bc"]
    config = load_config(unscored).with_option("common_eval", "path", paths)
    with pytest.raises(CheckpointError, match=r"checkpoint_c\.pt: no such checkpoint"):
        scoring.predict(config, device=CPU)


def test_a_damaged_results_file_is_reported_first_and_kept(unscored: Path) -> None:
    path = unscored.parent / "run" / "results" / "results.json"
    path.parent.mkdir()
    path.write_text("[{")
    with pytest.raises(DataError, match=r"results\.json: not .* move"):
        scoring.predict(load_config(unscored), device=CPU)
    assert path.read_text() == "[{"


# ---- a checkpoint of another training run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with checkpoint_best.pt and config.yaml, which can also be evaluated."""
    return make_run(tmp_path / "run")


def check(run: Path, *overrides: str) -> None:
    check_checkpoint_fits(
        load_config(run / "config.yaml", overrides), run / "checkpoint_best.pt"
    )


def test_another_max_video_len_is_logged(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    check(run)
    assert not caplog.records
    check(run, f"dataset.max_video_len={2 * F}", f"dataset.max_len={3 * F}")
    assert (
        f"trained with `dataset.max_video_len` {F}, scored with {2 * F}" in caplog.text
    )


def test_features_of_another_encoder_are_a_warning(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = {"features": {"width": 512, "encoder": "s3d"}}
    (run / "run.json").write_text(json.dumps(facts))
    info = {"width": 512, "encoder": "hf:a/clip"}
    (tmp_path / "features.json").write_text(json.dumps(info))
    check(run, f"dataset.vfeat_dir={tmp_path}")
    (message,) = caplog.messages
    assert message.startswith(f"{run}/checkpoint_best.pt: the features are from hf:a/c")
    assert "trained with features from s3d" in message


def test_a_copy_of_the_bert_is_accepted(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied = shutil.copytree(run / "bert", tmp_path / "copied")
    check(run, f"dataset.bert_name={copied}")
    assert not caplog.records, "the two were compared, and are equal"


def test_a_bert_with_another_vocabulary_is_an_error(run: Path, tmp_path: Path) -> None:
    bert = Path(tiny_bert(tmp_path / "other"))
    *pieces, first, second = (bert / "vocab.txt").read_text().splitlines()
    (bert / "vocab.txt").write_text("\n".join([*pieces, second, first]) + "\n")
    config = load_config(run / "config.yaml", [f"dataset.bert_name={bert}"])
    with pytest.raises(ConfigError) as error:
        scoring.predict(config, device=CPU)
    message = str(error.value)
    assert f"the same word pieces as `{run / 'bert'}`" in message
    assert f"was trained ({run / 'config.yaml'}), but is `{bert}`" in message
    assert f"Score it with `dataset.bert_name={run / 'bert'}`." in message


def test_a_bert_that_is_missing_is_not_compared(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = shutil.move(run / "bert", tmp_path / "moved")
    (run / "bert").mkdir()
    check(run, f"dataset.bert_name={moved}")
    assert (
        f"{run / 'config.yaml'} cannot be compared with this evaluation: "
        in caplog.text
    )


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "dataset: 3", "a: [", "dataset: {bert_name: 3, max_video_len: x}"],
)
def test_a_config_of_another_program_is_only_logged(
    run: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(run / "config.yaml")
    (run / "config.yaml").write_text(text)
    check_checkpoint_fits(config, run / "checkpoint_best.pt")
    (record,) = caplog.records
    assert "cannot be compared with this evaluation: " in record.getMessage()


def test_features_are_also_compared_with_a_released_checkpoint(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no config.yaml, and was trained on features of S3D."""
    features = tmp_path / "clip"
    features.mkdir()
    info = {"width": 512, "encoder": "hf:a/clip"}
    (features / "features.json").write_text(json.dumps(info))
    config = load_config(run / "config.yaml", [f"dataset.vfeat_dir={features}"])
    (run / "config.yaml").unlink()
    check_checkpoint_fits(config, run / "checkpoint_best.pt")
    (record,) = caplog.records
    assert "hf:a/clip" in record.getMessage()


def test_a_missing_config_is_ignored(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(run / "config.yaml")
    (run / "config.yaml").unlink()
    check_checkpoint_fits(config, run / "checkpoint_best.pt")
    assert not caplog.records
