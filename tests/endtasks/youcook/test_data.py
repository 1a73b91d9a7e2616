"""YouCook2's files in all formats, the items from these files, and messages about mistakes.

The items are compared with the items of the release in tests/parity/test_e2e.py.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.endtasks.youcook.data import (
    YoucookConfig,
    YoucookFullVideoBGMetaProcessor,
    YoucookMetaProcessor,
    YoucookVideoProcessor,
)
from mmpt.errors import ConfigError, DataError

RECORDS = [
    {"id": "a_b_1", "caption": "stir it"},
    {"id": "a_b_0", "caption": "cut it"},
    {"id": "c_0", "caption": "eat it"},
]
DATABASE = {
    "a_b": {
        "annotations": [
            {"segment": [2, 5], "sentence": "cut the onion", "id": 0},
            {"segment": [7, 12], "sentence": "stir the pot", "id": 1},
        ]
    },
    "c": {"annotations": [{"segment": [0, 40], "sentence": "eat the soup", "id": 0}]},
    "unused": {"subset": "testing"},
}
CSV = (
    "end,start,task,text,video_id\n12,7,1,stir the pot,a_b\n5,2,1,cut the onion,a_b\n"
    "40,0,1,eat the soup,c\n"
)
EXPECTED = [
    (("a_b", 7, 12), "stir the pot"),
    (("a_b", 2, 5), "cut the onion"),
    (("c", 0, 40), "eat the soup"),
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the same annotations in every format.

    Video a_b has features of 12 seconds, and video c of 36.
    """
    (tmp_path / "val.pkl").write_bytes(pickle.dumps(RECORDS))
    (tmp_path / "val.json").write_text(json.dumps(RECORDS))
    (tmp_path / "val.csv").write_text(CSV)
    write_annotation(tmp_path, DATABASE)
    for video, seconds in (("a_b", 12), ("c", 36)):
        feature = np.arange(seconds)[:, None] + np.zeros((1, 512), np.float16)
        np.save(tmp_path / f"{video}.npy", feature)
    return tmp_path


def write_annotation(folder: Path, database: Any) -> None:
    (folder / "trainval.json").write_text(json.dumps({"database": database}))


def config_of(folder: Path, name: str = "val.json", **more: Any) -> YoucookConfig:
    path = str(folder / name)
    values: dict[str, Any] = {
        "test_path": path,
        "train_path": path,
        "trainval_annotation": str(folder / "trainval.json"),
        "use_annotation_text": True,
        "vfeat_dir": str(folder),
    }
    return YoucookConfig(**(values | more))


def clips_of(
    folder: Path, name: str = "val.json", split: Split = Split.TEST, **more: Any
) -> Any:
    return YoucookMetaProcessor(config_of(folder, name, **more), split).items


def test_all_forms_give_the_same_clips_in_the_order_of_the_file(files: Path) -> None:
    assert clips_of(files, "val.pkl") == clips_of(files, "val.json") == EXPECTED
    assert clips_of(files, "val.csv", trainval_annotation=None) == EXPECTED
    own_captions = [text for _, text in clips_of(files, use_annotation_text=None)]
    assert own_captions == ["stir it", "cut it", "eat it"]


def test_clips_are_cut_from_their_video_and_short_features_are_counted(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = json.loads(json.dumps(DATABASE))
    database["a_b"]["annotations"][1]["segment"] = [12, 15]
    write_annotation(files, database)
    clips = clips_of(files)
    (said,) = caplog.messages
    assert "2 of 3 clips end after their video's features (first: a_b)" in said
    video = YoucookVideoProcessor(config_of(files), Split.TEST)
    assert [video(key)[:, 0].tolist() for key, _ in clips] == [
        [],
        [2, 3, 4],
        list(range(36)),
    ]


def test_whole_videos_are_listed_by_first_appearance_with_sorted_captions(
    files: Path,
) -> None:
    assert YoucookFullVideoBGMetaProcessor(config_of(files), Split.TEST).items == [
        ("a_b", ["cut the onion", "stir the pot"]),
        ("c", ["eat the soup"]),
    ]


def test_test_videos_without_features_are_kept(
    files: Path,
) -> None:
    (files / "c.npy").unlink()
    records = [*RECORDS, {"id": "not_annotated_0", "caption": "x"}]
    (files / "val.json").write_text(json.dumps(records))
    video = YoucookVideoProcessor(config_of(files), Split.TEST)
    assert [video.has(key) for key, _ in clips_of(files)] == [True, True, False, False]
    whole = YoucookFullVideoBGMetaProcessor(config_of(files), Split.TEST)
    assert [video_id for video_id, _ in whole.items] == ["a_b", "c", "not_annotated"]


def test_training_videos_without_features_are_left_out(files: Path) -> None:
    (files / "c.npy").unlink()
    with pytest.raises(
        DataError, match="1 of the 2 videos of the train split have no features"
    ):
        clips_of(files, split=Split.TRAIN)
    assert clips_of(files, split=Split.TRAIN, max_missing=0.5) == EXPECTED[:2]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"a": 1}, "must be a list of records"),
        ([], "its content must have a length of at least 1"),
        ([{"id": "a", "caption": "x"}], "`[0].id` must match pattern"),
        ([*RECORDS, RECORDS[0]], "1 are listed again (first: a_b_1)"),
        (
            [{"id": "a_b_2", "caption": "x"}],
            "entry 2 (from 0) of its video, but has 2 entries",
        ),
        (
            [{"id": "val.json_0", "caption": "x"}],
            "entry 0 (from 0) of its video, but has 0",
        ),
        ([{"id": "a_b_0", "caption": " "}], "`caption`: its content must not be empty"),
        ([{"id": "a_b_0"}], "`caption`: its content must be text, but is None"),
    ],
)
def test_mistakes_in_the_records_are_reported(
    files: Path, records: Any, message: str
) -> None:
    np.save(files / "val.json.npy", np.zeros((3, 512), np.float16))
    (files / "val.json").write_text(json.dumps(records))
    with pytest.raises(DataError) as error:
        clips_of(files, use_annotation_text=False)
    assert message in str(error.value)
    assert str(files / "val.json") in str(error.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sentence": "x"}, "`segment` must be given"),
        ({"segment": [3, 3], "sentence": "x"}, "with start < end, but is [3, 3]"),
        ({"segment": [-1, 3], "sentence": "x"}, "`segment[0]` must be at least 0"),
        (
            {"segment": [1, 3], "sentence": ""},
            "record c_0: `sentence`: its content must not be",
        ),
        ("x", "its content must be a mapping"),
    ],
)
def test_mistakes_in_the_annotation_are_reported(
    files: Path, entry: Any, message: str
) -> None:
    write_annotation(files, {**DATABASE, "c": {"annotations": [entry]}})
    with pytest.raises(DataError) as error:
        clips_of(files)
    assert message in str(error.value)
    assert "trainval.json: video c" in str(error.value) or "record c_0" in str(
        error.value
    )


@pytest.mark.parametrize("database", [[], {}, {"a": {"annotations": 3}}])
def test_annotations_of_another_format_are_refused(files: Path, database: Any) -> None:
    write_annotation(files, database)
    with pytest.raises(
        DataError, match=r"trainval.json: .* It must be YouCook2's file"
    ):
        clips_of(files)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,sentence\nvideo1,x\n", "must have the columns start, end, text"),
        (CSV.replace("12,7", "late,7"), "line 2: `end` must be a whole number"),
        (
            CSV.replace("12,7", "7,12"),
            "line 2: its content must be [start, end] in whole seconds",
        ),
        (CSV.replace("eat the soup", " "), "line 4: `text` must not be empty"),
        (
            CSV + "40,0,1,eat the soup,c\n",
            "1 are listed again (first: c 0 40 'eat the soup')",
        ),
    ],
)
def test_mistakes_in_a_csv_file_are_reported(
    files: Path, text: str, message: str
) -> None:
    (files / "val.csv").write_text(text)
    with pytest.raises(DataError) as error:
        clips_of(files, "val.csv")
    assert message in str(error.value)


def test_records_need_an_annotation(files: Path) -> None:
    message = (
        r"`dataset.trainval_annotation` must be set, since .*val.json has no times"
    )
    with pytest.raises(ConfigError, match=message):
        clips_of(files, trainval_annotation=None)
