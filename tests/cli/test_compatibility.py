"""A checkpoint against the evaluation that scores it: another length is logged, another vocabulary
refused.
"""

import shutil
from pathlib import Path

import pytest
import torch

from mmpt.cli.scoring import check_checkpoint_fits, predict
from mmpt.config import load_config
from mmpt.errors import ConfigError
from tests.models.tiny_model import F, make_run
from tests.tiny_bert import tiny_bert


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder: checkpoint_best.pt, and config.yaml, which can also score it."""
    return make_run(tmp_path / "run")


def check(run: Path, *overrides: str) -> None:
    check_checkpoint_fits(load_config(run / "config.yaml", overrides), run / "checkpoint_best.pt")


def test_another_max_video_len_is_logged(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    check(run)
    assert not caplog.records
    check(run, f"dataset.max_video_len={2 * F}", f"dataset.max_len={3 * F}")
    assert f"trained with `dataset.max_video_len` {F}, scored with {2 * F}" in caplog.text


def test_a_copy_of_the_bert_fits(run: Path, tmp_path: Path) -> None:
    check(run, f"dataset.bert_name={shutil.copytree(run / 'bert', tmp_path / 'copied')}")


def test_scoring_with_other_word_pieces_is_refused_before_anything_is_read(
    run: Path, tmp_path: Path
) -> None:
    bert = Path(tiny_bert(tmp_path / "other"))
    *pieces, first, second = (bert / "vocab.txt").read_text().splitlines()
    (bert / "vocab.txt").write_text("\n".join([*pieces, second, first]) + "\n")
    config = load_config(run / "config.yaml", [f"dataset.bert_name={bert}"])
    with pytest.raises(ConfigError) as error:
        predict(config, device=torch.device("cpu"))
    message = str(error.value)
    assert f"those of `{run / 'bert'}` ({run / 'config.yaml'}), but is `{bert}`" in message
    assert f"Score it with `dataset.bert_name={run / 'bert'}`." in message


def test_a_bert_that_is_gone_cannot_be_compared(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = shutil.move(run / "bert", tmp_path / "moved")
    (run / "bert").mkdir()
    check(run, f"dataset.bert_name={moved}")
    assert f"trained with the BERT `{run / 'bert'}`, which cannot be compared" in caplog.text


@pytest.mark.parametrize(
    "text", ["[1, 2]", "dataset: 3", "a: [", "dataset: {bert_name: 3, max_video_len: x}", None]
)
def test_a_config_of_another_program_or_none_is_passed_over(run: Path, text: str | None) -> None:
    config = load_config(run / "config.yaml")
    (run / "config.yaml").unlink()
    if text is not None:
        (run / "config.yaml").write_text(text)
    check_checkpoint_fits(config, run / "checkpoint_best.pt")
