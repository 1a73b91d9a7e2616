"""HTM-Align's file, and which windows are compared with which sentences."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.endtasks.how2align.data import (
    How2AlignMetaProcessor,
    Sentence,
    comparisons,
    read_alignment,
)
from mmpt.errors import DataError

GOOD = [[1, 0.5, 4, "cut it"], [0, 6, 8.0, "hello there friends"]]


def write(folder: Path, value: Any) -> str:
    path = folder / "htm_align.json"
    path.write_text(json.dumps(value))
    return str(path)


def test_videos_are_ordered_by_their_ids(tmp_path: Path) -> None:
    config = How2AlignMetaProcessor.Config(
        anno_path=write(tmp_path, {"b": GOOD, "a": GOOD[:1]})
    )
    meta = How2AlignMetaProcessor(config, Split.TEST)
    assert [meta[k][0] for k in range(len(meta))] == ["a", "b"]
    assert meta[1][1] == [tuple(row) for row in GOOD]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([GOOD], "It must be HTM-Align's file, {video id: "),
        ({}, "its content must have a length of at least 1"),
        ({"database": {"x": {"subset": "testing"}}}, "`database` must be a list"),
        ({"a": GOOD, "b": []}, "`b` must have a length of at least 1"),
        ({"a": [[2, 0, 1, "x"]]}, "`a[0][0]` must be a valid boolean"),
        ({"a": [[1, -1, 1, "x"]]}, "`a[0][1]` must be at least 0, but is -1"),
        ({"a": [[1, 0, float("nan"), "x"]]}, "`a[0][2]` must be "),
        ({"a": [[1, 0, 1, "  "]]}, "`a[0][3]` must not be empty"),
    ],
)
def test_mistakes_in_the_file_are_reported(
    tmp_path: Path, value: Any, message: str
) -> None:
    path = write(tmp_path, value)
    with pytest.raises(DataError) as error:
        read_alignment(path)
    assert str(error.value).startswith(path)
    assert message in str(error.value)


def test_repeated_sentences_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_alignment(write(tmp_path, {"a": [*GOOD, *GOOD], "b": GOOD}))
    assert "2 of 3 rows share their caption with another (a: cut it)" in caplog.text


def naive_comparisons(
    sentences: list[Sentence], num_seconds: int
) -> list[tuple[int, int, int]]:
    """The rule as it is written in the specification."""
    found = []
    starts = list(range(0, num_seconds - 16, 8))
    for idx, p in enumerate(starts):
        active = []
        for k, sentence in enumerate(sentences):
            middle = (sentence.start_s + sentence.end_s) / 2
            if not sentence.aligned and p - 32 <= middle <= p + 64:
                active.append(k)
        if active:
            left, right = min(active), max(active)
            if idx <= 3:
                left = 0
            elif idx >= len(starts) - 4:
                right = len(sentences) - 1
            found.append((p, left, right + 1))
    return found


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_comparisons_follow_the_rule(share: float) -> None:
    rng = np.random.default_rng(0)
    skipped = 0
    for num_seconds in (1, 16, 17, 30, 47, 48, 49, 90, 200, 333):
        size = (num_seconds // 8 + 1, 2)
        times = np.sort(rng.integers(0, num_seconds + 1, size), axis=1)
        times = times[times[:, 0].argsort()]
        sentences = [Sentence(bool(rng.random() < share), a, b, "x") for a, b in times]
        steps = comparisons(sentences, num_seconds)
        assert steps == naive_comparisons(sentences, num_seconds)
        skipped += len(range(0, num_seconds - 16, 8)) - len(steps)
    assert skipped or share < 0.9  # windows without aligned sentences are skipped
