"""HTM-Align's file, and which windows are compared with which sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.datasets import collate
from mmpt.endtasks.how2align.data import (
    How2AlignAligner,
    How2AlignMetaProcessor,
    How2AlignTextProcessor,
    Sentence,
    comparisons,
    read_alignment,
)
from mmpt.errors import DataError
from mmpt.utils.rng import item_rng
from tests.tiny_bert import tiny_bert

GOOD = [[1, 0.5, 4, "cut it"], [0, 6, 8.0, "hello there friends"]]


def write(folder: Path, value: Any) -> str:
    path = folder / "htm_align.json"
    path.write_text(json.dumps(value))
    return str(path)


def test_videos_come_in_order_of_their_ids(tmp_path: Path) -> None:
    config = DatasetConfig(anno_path=write(tmp_path, {"b": GOOD, "a": GOOD[:1]}))
    meta = How2AlignMetaProcessor(config, Split.TEST)
    assert [meta[k][0] for k in range(len(meta))] == ["a", "b"]
    assert meta[1][1] == [
        Sentence(True, 0.5, 4.0, "cut it"),
        Sentence(False, 6.0, 8.0, "hello there friends"),
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([GOOD], "It must be HTM-Align's file, {video id: "),
        ({}, "its content must have a length of at least 1"),
        ({"database": {"x": {"subset": "testing"}}}, "`database` must be a list"),
        ({"a": GOOD, "b": []}, "`b` must have a length of at least 1"),
        ({"a": [*GOOD, [1, 2, "x"]]}, "`a[2][2]` must be a number"),
        ({"a": [[2, 0, 1, "x"]]}, "`a[0][0]` must be a valid boolean"),
        ({"a": [[1, -1, 1, "x"]]}, "`a[0][1]` must be at least 0, but is -1"),
        ({"a": [[1, 0, float("nan"), "x"]]}, "`a[0][2]` must be "),
        ({"a": [[1, 0, 1, "  "]]}, "`a[0][3]` must not be empty"),
        ({"a": GOOD[:1]}, "but 1 of 1 are alignable"),
        ({"a": GOOD[1:]}, "but 0 of 1 are alignable"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, value: Any, message: str) -> None:
    path = write(tmp_path, value)
    with pytest.raises(DataError) as error:
        read_alignment(path)
    assert str(error.value).startswith(path)
    assert message in str(error.value)


def test_times_that_run_backwards_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_alignment(write(tmp_path, {"a": [[1, 4, 3.5, "x"], *GOOD]}))
    assert "1 of 3 sentences end before they start" in caplog.text


def test_repeated_sentences_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_alignment(write(tmp_path, {"a": [*GOOD, *GOOD], "b": GOOD}))
    assert "1 of 3 alignable sentences repeat another of their video" in caplog.text


def naive_comparisons(sentences: list[Sentence], num_seconds: int) -> list[tuple[int, int, int]]:
    """The rule as the specification words it."""
    found = []
    starts = []
    p = 0
    while p < num_seconds - 16:
        starts.append(p)
        p += 8
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


def test_comparisons_are_those_of_the_rule() -> None:
    rng = np.random.default_rng(0)
    skipped = 0
    for num_seconds in (1, 16, 17, 30, 47, 48, 49, 90, 200, 333):
        for share in (0.1, 0.5, 0.9):
            times = np.sort(
                rng.integers(0, num_seconds + 1, size=(num_seconds // 8 + 1, 2)), axis=1
            )
            sentences = [
                Sentence(bool(rng.random() < share), a, b, "x")
                for a, b in times[times[:, 0].argsort()]
            ]
            steps = comparisons(sentences, num_seconds)
            assert steps == naive_comparisons(sentences, num_seconds)
            skipped += len(range(0, num_seconds - 16, 8)) - len(steps)
    assert skipped > 10  # the rule's "none active" was met


# The window from 40 s on is left out: the one sentence of its kind is said more than 32 s before.
@pytest.mark.parametrize(("num_seconds", "num_windows"), [(60, 5), (16, 0)])
def test_an_item_has_a_caption_per_sentence_and_a_window_per_step(
    tmp_path: Path, num_seconds: int, num_windows: int
) -> None:
    config = DatasetConfig(
        bert_name=tiny_bert(tmp_path / "bert"),
        max_video_len=32,
        max_len=96,
        sliding_window=8,
        sliding_window_size=32,
    )
    sentences = [
        Sentence(True, 0.5, 4.0, "cut it"),
        Sentence(False, 6.0, 8.0, "hello there friends"),
    ]
    feature = np.arange(num_seconds * 512, dtype=np.float32).reshape(num_seconds, 512)
    text = How2AlignTextProcessor(config, Split.TEST)(sentences)
    item = How2AlignAligner(config, Split.TEST)("a", feature, text, item_rng(0, 0, 0))
    assert item["caps"].shape == (2, 64)
    assert item["vfeats"].shape == (num_windows, 32, 512)
    assert item["windows"].shape == (num_windows, 3)
    for row, (start, _, _) in enumerate(item["windows"].tolist()):
        length = min(32, num_seconds - start)
        np.testing.assert_array_equal(
            item["vfeats"][row, :length].numpy(), feature[start : start + length]
        )
        assert item["vmasks"][row].tolist() == [True] * length + [False] * (32 - length)
    with pytest.raises(DataError, match="video a: a video must have a second at least"):
        How2AlignAligner(config, Split.TEST)("a", feature[:0], text, item_rng(0, 0, 0))
    batch = collate([item])
    assert batch["video_id"] == ["a"]
    assert batch["sentence_s"].tolist() == [[[0.5, 4.0], [6.0, 8.0]]]
