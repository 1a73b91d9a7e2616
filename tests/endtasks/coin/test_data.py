"""COIN's file and items. tests/parity/test_e2e.py compares the arrays of the aligner."""

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.config import DatasetConfig
from mmpt.endtasks.coin.data import (
    IGNORE_INDEX,
    COINActionSegmentationAligner,
    COINActionSegmentationMetaProcessor,
    Step,
    step_labels,
    steps_by_row,
)
from mmpt.errors import DataError
from mmpt.processors.window_aligner import window_spans
from tests.support.e2e_data import E2E
from tests.support.tiny_bert import tiny_bert

FILES = E2E["annotation_files"]
COIN: dict[str, Any] = json.loads(FILES["data/coin/COIN.json"])


def written(folder: Path, value: Any) -> str:
    path = folder / "COIN.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def changed(video: str, number: int, **fields: Any) -> dict[str, Any]:
    value = copy.deepcopy(COIN)
    value["database"][video]["annotation"][number] |= fields
    return value


def test_subsets_and_steps(tmp_path: Path) -> None:
    path = written(tmp_path, COIN)
    for name in COIN["database"]:
        np.save(tmp_path / f"{name}.npy", np.zeros((3, 512), np.float16))
    config = DatasetConfig(
        train_path=path, val_path=path, test_path=path, vfeat_dir=str(tmp_path)
    )
    train, valid, test = [
        COINActionSegmentationMetaProcessor(config, split) for split in Split
    ]
    assert [key for key, _ in train.items] == ["coin04"]
    assert [key for key, _ in test.items] == [
        "coin00",
        "coin01",
        "coin02",
        "coin03",
        "coin05",
    ]
    assert valid.items == test.items
    video, steps = test[1]
    assert video == "coin01"
    found = [(*step.segment, step.id) for step in steps]
    assert found == [(1.3, 9.5, 4), (18.6, 24.6, 5), (36.0, 48.2, 6)]


def test_only_labels_of_the_testing_subset_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = step_labels(
        written(tmp_path, changed("coin04", 0, label="only said in training"))
    )
    assert len(labels) == 12
    assert labels[:2] == ["sugar here thread", "onion going did"]
    assert not caplog.messages
    # Step 9 gets the words of step 12.
    labels = step_labels(
        written(tmp_path, changed("coin05", 1, label="why draw butter"))
    )
    assert labels[8] == labels[11] == "why draw butter"
    assert (
        "2 of 12 rows share their caption with another (why draw butter)" in caplog.text
    )


def test_a_step_without_words_is_reported(tmp_path: Path) -> None:
    message = (
        r"every step from 1 to 15 must have a label .* 2 have none \(first: 13, 14"
    )
    with pytest.raises(DataError, match=message):
        step_labels(written(tmp_path, changed("coin05", 2, id="15")))


@pytest.mark.parametrize("seed", range(5))
def test_targets_equal_a_plain_loop_over_windows_and_steps(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    seconds = rng.randint(1, 60)
    steps = []
    for _ in range(6):
        start = rng.choice(
            [rng.uniform(0, seconds + 5), float(rng.randint(0, seconds))]
        )
        end = start + rng.choice([0.0, 0.3, 1.0, rng.uniform(0, 20)])
        steps.append(Step(id=rng.randint(1, 778), segment=(start, end), label="x"))
    config = COINActionSegmentationAligner.Config(
        bert_name=tiny_bert(tmp_path),
        max_video_len=16,
        max_len=32,
        sliding_window=7,
        sliding_window_size=12,
    )
    feature = np.zeros((seconds, 512), np.float16)
    item = COINActionSegmentationAligner(config, Split.TEST)("a", feature, steps, rng)
    spans = window_spans(seconds, 7, 12)
    expected = np.full((len(spans), 16), IGNORE_INDEX)
    for row, (begin, stop) in zip(expected, spans, strict=True):
        row[: stop - begin] = 0
        for step in steps:
            start, end = step.segment
            if begin < end and start < stop:
                first = max(begin, math.floor(start))
                last = min(stop, math.ceil(end))
                row[first - begin : last - begin] = step.id
    np.testing.assert_array_equal(item["targets"], expected)
    np.testing.assert_array_equal(item["video_targets"], steps_by_row(steps, seconds))


STEP = "`database.coin01.annotation[0]"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            json.loads(FILES["data/youcook/youcookii_annotations_trainval.json"]),
            "COIN's file",
        ),
        ("{", "not valid JSON"),
        ({"database": {}}, "must hold videos of the subset testing, but holds none"),
        (changed("coin01", 0, id="0"), f"{STEP}.id` must be at least 1, but is '0'"),
        (changed("coin01", 0, id="779"), "must be at most 778, but is '779'"),
        (
            changed("coin01", 0, label=" "),
            f"{STEP}.label` must not be empty, but is ' '",
        ),
        (
            changed("coin01", 0, segment=[5, 2]),
            "[start, end] with start <= end, but is [5, 2]",
        ),
        (changed("coin01", 0, segment=[-1, 2]), f"{STEP}.segment[0]` must be at least"),
        (
            changed("coin01", 0, segment=[1, float("inf")]),
            "must be a finite number, but is inf",
        ),
    ],
)
def test_damaged_or_unrelated_files_are_reported(
    tmp_path: Path, value: Any, message: str
) -> None:
    path = written(tmp_path, value)
    with pytest.raises(DataError) as caught:
        COINActionSegmentationMetaProcessor(DatasetConfig(test_path=path), Split.TEST)
    assert str(caught.value).startswith(path)
    assert message in str(caught.value)


def test_targets_at_two_rows_a_second_describe_half_seconds(tmp_path: Path) -> None:
    steps = [Step(id=4, segment=(1.3, 3.5), label="x")]
    config = COINActionSegmentationAligner.Config(
        bert_name=tiny_bert(tmp_path),
        feature_fps=2,
        max_video_len=6,
        max_len=32,
        sliding_window=3,
        sliding_window_size=6,
    )
    feature = np.zeros((13, 512), np.float16)
    aligner = COINActionSegmentationAligner(config, Split.TEST)
    item = aligner("a", feature, steps, random.Random(0))
    assert item["vfeats"].shape == (2, 12, 512)
    rows = [0, 0, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0]
    assert item["targets"].tolist() == [rows[:12], rows[6:] + [IGNORE_INDEX] * 5]
    assert item["video_targets"].tolist() == [0, 4, 4, 4, 0, 0, 0]
