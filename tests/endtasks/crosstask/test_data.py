"""CrossTask's files, its split, and its items.

tests/parity/test_e2e.py compares the arrays of the aligner.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.config import DatasetConfig
from mmpt.config.sections import joined
from mmpt.endtasks.crosstask.data import (
    CrossTaskAligner,
    CrossTaskMetaProcessor,
    CrossTaskTextProcessor,
    CrossTaskVideoProcessor,
)
from mmpt.errors import ConfigError, DataError
from tests.support.crosstask_data import STEPS, video_ids, write_crosstask
from tests.support.tiny_bert import tiny_bert


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return write_crosstask(tmp_path / "crosstask")


def meta(files: dict[str, str], split: Split, **more: Any) -> CrossTaskMetaProcessor:
    config = CrossTaskMetaProcessor.Config(**{**files, "n_train": 5, **more})
    return CrossTaskMetaProcessor(config, split)


def ids(processor: CrossTaskMetaProcessor) -> list[str]:
    return [video.video_id for video, _ in processor.items]


def released_split(there: list[list[str]], n_train: int) -> tuple[list[str], list[str]]:
    """Returns training and test videos, drawn with NumPy's global generator as in the release."""
    state = np.random.get_state()
    np.random.seed(0)
    train: list[str] = []
    test: list[str] = []
    for names in there:
        few = len(names) <= n_train
        drawn = (
            names if few else np.random.choice(names, n_train, replace=False).tolist()
        )
        train += drawn
        test += [name for name in names if name not in drawn]
    np.random.set_state(state)
    return train, test


@pytest.mark.parametrize("n_train", [2, 3, 5])
def test_the_split_equals_the_released_one(files: dict[str, str], n_train: int) -> None:
    there = [[name for name in video_ids("101") if name != "v101-03"], video_ids("205")]
    train, test = released_split(there, n_train)
    before = np.random.get_state()[1].copy()
    assert sorted(ids(meta(files, Split.TRAIN, n_train=n_train))) == sorted(train)
    assert ids(meta(files, Split.TEST, n_train=n_train)) == test
    assert ids(meta(files, Split.VALID, n_train=n_train)) == test
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_only_the_test_set_has_videos_without_features(
    files: dict[str, str],
) -> None:
    gone = ["v101-00", "v101-05"]
    for name in gone:
        (Path(files["vfeat_dir"]) / f"{name}.npy").unlink()
    usable = [name for name in video_ids("101") if name not in (*gone, "v101-03")]
    there = [usable, video_ids("205")]
    train, test = released_split(there, 5)
    assert sorted(ids(meta(files, Split.TRAIN))) == sorted(train)
    whole = meta(files, Split.TEST)
    assert [name for name in ids(whole) if name not in gone] == test
    assert set(gone) < set(ids(whole))  # so that scoring reports them
    config = DatasetConfig(vfeat_dir=files["vfeat_dir"])
    reader = CrossTaskVideoProcessor(config, Split.TEST)
    assert [key.video_id for key, _ in whole.items if not reader.has(key)] == gone
    with pytest.raises(
        DataError, match="2 of the 3 videos of the valid split have no features"
    ):
        meta(files, Split.VALID)


def test_items_contain_the_steps_of_their_task(
    files: dict[str, str], tmp_path: Path
) -> None:
    """The tensors are compared with the release's in tests/parity/test_e2e.py."""
    sizes = {
        "max_video_len": 8,
        "max_len": 18,
        "sliding_window": 4,
        "sliding_window_size": 8,
    }
    config_cls = joined(CrossTaskMetaProcessor.Config, CrossTaskAligner.Config)
    config = config_cls(
        **files, **sizes, bert_name=tiny_bert(tmp_path / "bert"), n_train=5
    )
    video, steps = CrossTaskMetaProcessor(config, Split.TEST)[0]
    assert (video.task, steps.texts) == ("101", STEPS["101"])
    pieces = CrossTaskTextProcessor(config, Split.TEST)(steps)
    feature = CrossTaskVideoProcessor(config, Split.TEST)(video)
    item = CrossTaskAligner(config, Split.TEST)(
        video, feature, pieces, random.Random(0)
    )
    assert item["caps"].shape == (3, 10)
    assert item["targets"].shape == (item["vmasks"].sum(), 3)
    # Step 1 is done from 6.5 to 8.25 s: seconds 6 and 7 of window 0, and second 4 of window 1.
    assert item["targets"][6:9, 0].tolist() == [1, 1, 0]
    assert (item["task"], item["video_len"]) == ("101", len(feature))


def test_a_video_without_any_step_is_kept(files: dict[str, str]) -> None:
    name = ids(meta(files, Split.TEST))[1]
    (Path(files["annotation_path"]) / f"101_{name}.csv").write_text("\n")
    assert meta(files, Split.TEST)[1] == ((name, "101"), (STEPS["101"], []))


def test_repeated_rows_count_once(files: dict[str, str]) -> None:
    expected = ids(meta(files, Split.TEST))
    path = Path(files["train_csv_path"])
    path.write_text(path.read_text() + path.read_text())
    assert ids(meta(files, Split.TEST)) == expected


BLOCK = "101\nTask\nhttps://x\n3\na,b,c\n\n"


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("primary_path", "", "line 1: a task must be six lines"),
        (
            "primary_path",
            BLOCK + "102\nTask\n",
            "line 7: a task must .* here is '102 / Task'",
        ),
        (
            "primary_path",
            BLOCK.replace("\n3\n", "\n4\n"),
            "as many steps between commas",
        ),
        (
            "primary_path",
            BLOCK.replace("a,b,c", "a,,c"),
            "line 1: a task must be six lines",
        ),
        (
            "primary_path",
            BLOCK.replace("101\n", "x\n"),
            "line 1: a task must be six lines",
        ),
        (
            "primary_path",
            BLOCK + BLOCK,
            r"line 7: a task must .* id \(once in the file\)",
        ),
        ("related_path", "\xff", "not text in UTF-8"),
        ("train_csv_path", "101,a\n", "must have 3 cells"),
        (
            "train_csv_path",
            "key,vid_key,video_id\n",
            "line 1: `task` must match pattern",
        ),
        ("train_csv_path", "900,a,b\n", "there must be test videos with annotations"),
    ],
)
def test_damaged_or_unrelated_files_are_reported(
    files: dict[str, str], key: str, content: str, message: str
) -> None:
    path = Path(files[key])
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message) as caught:
        meta(files, Split.TEST)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("4,1,2", "the step must be 1 to 3, as the task has so many, but is 4"),
        ("0,1,2", "`step` must be at least 1, but is '0'"),
        ("1,5,2", "its content must have start <= end"),
        ("1,1,nan", "`end` must be "),
        ("1,1", "must have 3 cells"),
    ],
)
def test_invalid_rows_of_annotations_are_reported(
    files: dict[str, str], row: str, message: str
) -> None:
    name = ids(meta(files, Split.TEST))[0]
    path = Path(files["annotation_path"]) / f"101_{name}.csv"
    path.write_text(f"1,1,2\n{row}\n")
    with pytest.raises(DataError, match=rf"101_{name}\.csv, line 2: .*{message}"):
        meta(files, Split.TEST)


@pytest.mark.parametrize(
    "key",
    [
        "train_csv_path",
        "val_csv_path",
        "primary_path",
        "related_path",
        "annotation_path",
    ],
)
def test_missing_settings_and_files_are_reported(
    files: dict[str, str], key: str
) -> None:
    message = f"`dataset.{key}` must be set for CrossTaskMetaProcessor"
    with pytest.raises(ConfigError, match=message):
        meta(files, Split.TEST, **{key: None})
    with pytest.raises(DataError, match=r"no such file|there must be test videos"):
        meta(files, Split.TEST, **{key: "nowhere"})
