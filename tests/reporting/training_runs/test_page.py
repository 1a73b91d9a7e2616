"""The page about training runs shows the contents of logs and settings, and is safe HTML."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

import mmpt
from mmpt.reporting.training_runs import (
    Evaluation,
    read_training_runs,
    write_training_page,
)
from mmpt.utils.run_loggers import RUN_METADATA, RunMetadata
from tests.support.sample_runs import NASTY
from tests.support.sample_trainings import write_run


def words_of(page: Path) -> str:
    """Returns the visible text of a page in one line."""
    content = page.read_text()
    body = content.partition("<body>")[2]
    text = re.sub(r"<(title|svg)\b.*?</\1>", " ", body, flags=re.DOTALL)
    text = re.sub("<[^>]*>", " ", text)
    return " ".join(html.unescape(text).split())


def test_the_page_of_a_training_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "mine", note=NASTY)
    RunMetadata(folder, 0, {"git_commit": "abc1234"}).write()
    trainings = read_training_runs([folder])
    scores = {"chance": {"M": {"R1": 0.125}}, "best": {"M": {"R1": 0.5}}}
    evaluation = Evaluation("a benchmark", scores, ["a note"])
    page = write_training_page(trainings, [evaluation], tmp_path / "page.html")
    words = words_of(page)
    for text in (
        "mine: training",
        "state finished: epoch 3 of 3, 30 updates",
        f"code mmpt {mmpt.__version__}, git commit abc1234",
        "checkpoint_best.pt: validation loss 5 after update 20",
        "Losses and metrics",
        "Retrieved batches",
        "Speed and memory",
        "a benchmark chance best M R1 12.5 50.0 a note",
        "max_len: 48",
        "alert(1)",
    ):
        assert text in words
    assert "<script" not in page.read_text()
    assert "differ between the training runs" not in words


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"git_commit": "abc1234"}, "code git commit abc1234"),
        ({"mmpt": "9.0", "git_commit": None, "more": 1}, "code mmpt 9.0 logged"),
        ({}, "loss 5 after update 20 logged"),
        ([], "loss 5 after update 20 logged"),
    ],
)
def test_the_known_facts_of_another_version_are_shown(
    tmp_path: Path, facts: Any, words: str
) -> None:
    folder = write_run(tmp_path / "mine")
    (folder / RUN_METADATA).write_text(json.dumps(facts))
    page = write_training_page(read_training_runs([folder]), [], tmp_path / "page.html")
    assert words in words_of(page)


def test_the_page_of_several_training_runs(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one")
    two = write_run(tmp_path / "two", offset=2, max_epoch=6)
    page = write_training_page(
        read_training_runs([one, two]), [], tmp_path / "page.html"
    )
    words = words_of(page)
    assert "2 training runs: one, two" in words
    assert "best validation loss 5 7" in words
    assert "fairseq.optimization.max_epoch 3 6" in words
    assert "one two dashed: validation" in words
    assert "Evaluation" not in words


def test_a_page_has_a_light_and_a_dark_theme(tmp_path: Path) -> None:
    trainings = read_training_runs([write_run(tmp_path / "mine")])
    content = write_training_page(trainings, [], tmp_path / "page.html").read_text()
    dark = content.partition("prefers-color-scheme:dark")[2]
    used = set(re.findall(r"var\((--\w+)", content))
    assert {"--ink", "--soft", "--grid", "--c0", "--c1"} <= used
    defined = set(re.findall(r"(--\w+):", content))
    assert used <= defined
    assert "--c1:" in dark
