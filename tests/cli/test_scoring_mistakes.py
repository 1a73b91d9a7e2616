"""What keeps an evaluation from being scored is found before the first checkpoint is, and leaves no
file behind.
"""

from pathlib import Path

import pytest
import torch

from mmpt.cli import scoring
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
        ("predictor=QAPredictor metric=QAMetric", "needs items with a 2-D `caps` (found: 1-D)"),
        ("predictor=DiDeMoPredictor metric=DiDeMoMetric", "a 2-D `times` (found: none)"),
        (
            "predictor=BGRetrievalPredictor metric=FullVideoBGRetrievalMetric",
            "a 3-D `vfeats` (found: 2-D)",
        ),
        (
            "dataset.aligner=MSRVTTQAAligner",
            "must belong together, but cannot make an item (ValueError",
        ),
        ("dataset.text_processor=MSRVTTQATextProcessor", "must belong together"),
        ("dataset.text_processor=YoucookFullVideoBGTextProcessor", "takes one text per test item"),
        ("dataset.aligner=os.getcwd", "the aligner `os.getcwd` must be a subclass of"),
    ],
)
def test_parts_that_do_not_belong_together(unscored: Path, overrides: str, message: str) -> None:
    settings = "fairseq.dataset.batch_size=1 dataset.max_video_len=30 dataset.max_len=62"
    config = load_config(unscored, [*settings.split(), *overrides.split()])
    with pytest.raises(ConfigError) as error:
        scoring.predict(config, device=CPU)
    assert message in str(error.value)
    assert not (unscored.parent / "run" / "results").exists()


def test_a_model_of_clips_does_not_take_whole_videos(scored: Path) -> None:
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


def test_a_checkpoint_that_is_not_there_is_found_before_the_others_are_scored(
    unscored: Path,
) -> None:
    paths = [f"{unscored.parent}/run/checkpoint_{name}.pt" for name in "bc"]
    config = load_config(unscored).with_option("common_eval", "path", paths)
    with pytest.raises(CheckpointError, match=r"checkpoint_c\.pt: no such checkpoint"):
        scoring.predict(config, device=CPU)


@pytest.mark.parametrize("content", ["", "[{", "{}", '[{"a": 1}]'])
def test_a_damaged_results_file_is_found_first_and_kept(unscored: Path, content: str) -> None:
    path = unscored.parent / "run" / "results" / "results.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(DataError, match=r"results\.json: not .* move"):
        scoring.predict(load_config(unscored), device=CPU)
    assert path.read_text() == content


def test_results_that_cannot_be_written_are_found_first(unscored: Path) -> None:
    (unscored.parent / "file").touch()
    config = load_config(unscored, [f"eval.save_path={unscored.parent}/file/results"])
    with pytest.raises(DataError, match=r"file is no folder to write in. Correct `eval.save_path`"):
        scoring.predict(config, device=CPU)
