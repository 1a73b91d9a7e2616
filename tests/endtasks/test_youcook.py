"""YouCook2's files in all their forms, the clips and whole videos made of them, and what is said
about mistakes.
"""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.datasets import MMDataset, collate
from mmpt.endtasks.youcook import (
    YoucookFullVideoBGAligner,
    YoucookFullVideoBGMetaProcessor,
    YoucookFullVideoBGProcessor,
    YoucookFullVideoBGTextProcessor,
    YoucookMetaProcessor,
    YoucookVideoProcessor,
)
from mmpt.errors import ConfigError, DataError
from mmpt.processors.downstream import DSAligner, TextProcessor
from tests.tiny_bert import tiny_bert

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


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with every form of the same annotations, and features of 12 seconds for a_b and 36
    for c.
    """
    (tmp_path / "val.pkl").write_bytes(pickle.dumps(RECORDS))
    (tmp_path / "val.json").write_text(json.dumps(RECORDS))
    (tmp_path / "val.csv").write_text(CSV)
    write_annotation(tmp_path, DATABASE)
    (tmp_path / "feat").mkdir()
    for video, seconds in (("a_b", 12), ("c", 36)):
        np.save(
            tmp_path / "feat" / f"{video}.npy",
            np.arange(seconds)[:, None] + np.zeros((1, 512), np.float16),
        )
    return tmp_path


def write_annotation(folder: Path, database: Any) -> None:
    (folder / "trainval.json").write_text(json.dumps({"database": database}))


def config_of(folder: Path, name: str = "val.pkl", **more: Any) -> DatasetConfig:
    values: dict[str, Any] = {
        "test_path": str(folder / name),
        "train_path": str(folder / name),
        "trainval_annotation": str(folder / "trainval.json"),
        "use_annotation_text": True,
        "vfeat_dir": str(folder / "feat"),
        "max_video_len": 32,
        "max_len": 48,
    }
    return DatasetConfig(**(values | more))


EXPECTED = [
    (("a_b", 7, 12), "stir the pot"),
    (("a_b", 2, 5), "cut the onion"),
    (("c", 0, 40), "eat the soup"),
]


@pytest.mark.parametrize("name", ["val.pkl", "val.json", "val.csv"])
def test_all_forms_give_the_same_clips_in_the_order_of_the_file(files: Path, name: str) -> None:
    annotation = None if name == "val.csv" else str(files / "trainval.json")
    meta = YoucookMetaProcessor(config_of(files, name, trainval_annotation=annotation), Split.TEST)
    assert [meta[k] for k in range(len(meta))] == EXPECTED


def test_captions_of_the_records_on_request(files: Path) -> None:
    meta = YoucookMetaProcessor(config_of(files, use_annotation_text=None), Split.TEST)
    assert [meta[k][1] for k in range(3)] == ["stir it", "cut it", "eat it"]


def test_a_clip_is_cut_from_its_video_and_short_features_are_counted_once(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = json.loads(json.dumps(DATABASE))
    database["a_b"]["annotations"][1]["segment"] = [12, 15]
    write_annotation(files, database)
    config = config_of(files)
    meta = YoucookMetaProcessor(config, Split.TEST)
    (said,) = caplog.messages
    assert "2 of 3 clips end after their video's features (2 videos: a_b, c)" in said
    assert "1 of these begin after them" in said
    video = YoucookVideoProcessor(config, Split.TEST)
    assert [video(meta[k][0])[:, 0].tolist() for k in range(3)] == [[], [2, 3, 4], list(range(36))]


def test_items_are_collated_as_the_predictor_expects(files: Path, tmp_path: Path) -> None:
    config = config_of(files, bert_name=tiny_bert(tmp_path / "bert"))
    parts = [
        part(config, Split.TEST)
        for part in (YoucookMetaProcessor, YoucookVideoProcessor, TextProcessor)
    ]
    dataset = MMDataset(*parts, DSAligner(config, Split.TEST), seed=1)
    batch = collate([dataset[k] for k in range(3)])
    videos, starts, ends = batch["video_id"]
    assert (list(videos), starts.tolist(), ends.tolist()) == (
        ["a_b", "a_b", "c"],
        [7, 2, 0],
        [12, 5, 40],
    )
    assert batch["vmasks"].sum(dim=1).tolist() == [5, 3, 32]


def test_whole_videos_come_by_first_appearance_with_captions_in_time_order(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meta = YoucookFullVideoBGMetaProcessor(config_of(files), Split.TEST)
    assert [meta[k] for k in range(len(meta))] == [
        ("a_b", ["cut the onion", "stir the pot"]),
        ("c", ["eat the soup"]),
    ]
    assert "regrouped" in caplog.text
    caplog.clear()
    (files / "val.json").write_text(json.dumps([RECORDS[1], RECORDS[0], RECORDS[2]]))
    YoucookFullVideoBGMetaProcessor(config_of(files, "val.json"), Split.TEST)
    assert not caplog.records


def test_an_item_of_a_whole_video_has_all_windows_and_all_captions(
    files: Path, tmp_path: Path
) -> None:
    config = config_of(
        files, bert_name=tiny_bert(tmp_path / "bert"), sliding_window=16, sliding_window_size=16
    )
    classes = (
        YoucookFullVideoBGMetaProcessor,
        YoucookFullVideoBGProcessor,
        YoucookFullVideoBGTextProcessor,
    )
    dataset = MMDataset(
        *[part(config, Split.TEST) for part in classes],
        YoucookFullVideoBGAligner(config, Split.TEST),
        seed=1,
    )
    first, second = dataset[0], dataset[1]
    assert (first["caps"].shape, first["vfeats"].shape) == ((2, 16), (1, 32, 512))
    assert second["vmasks"].sum(dim=1).tolist() == [16, 16, 4]
    assert second["vfeats"][2, :5, 0].tolist() == [32, 33, 34, 35, 0]
    assert (second["video_id"], second["video_len"]) == ("c", 36)


def test_a_test_video_without_features_is_kept_and_denied_by_the_reader(files: Path) -> None:
    (files / "feat" / "c.npy").unlink()
    (files / "val.json").write_text(
        json.dumps([*RECORDS, {"id": "not_annotated_0", "caption": "x"}])
    )
    config = config_of(files, "val.json")
    meta = YoucookMetaProcessor(config, Split.TEST)
    video = YoucookVideoProcessor(config, Split.TEST)
    assert [video.has(meta[k][0]) for k in range(len(meta))] == [True, True, False, False]
    whole = YoucookFullVideoBGMetaProcessor(config, Split.TEST)
    assert [whole[k][0] for k in range(len(whole))] == ["a_b", "c", "not_annotated"]


def test_training_leaves_out_what_has_no_features(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (files / "feat" / "c.npy").unlink()
    with pytest.raises(
        DataError, match=r"1 of the 2 videos of the train split have no features \(c\)"
    ):
        YoucookMetaProcessor(config_of(files), Split.TRAIN)
    meta = YoucookMetaProcessor(config_of(files, max_missing=0.5), Split.TRAIN)
    assert [meta[k] for k in range(len(meta))] == EXPECTED[:2]
    assert "left out" in caplog.text


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"a": 1}, "must be a list of records"),
        ([], "its content must have a length of at least 1"),
        ([{"id": "a", "caption": "x"}], "`[0].id` must match pattern"),
        ([{"video": "x", "description": "d"}], "`[0].id` must be given"),
        ([*RECORDS, RECORDS[0]], "1 are listed again (first: a_b_1)"),
        ([{"id": "a_b_2", "caption": "x"}], "a_b_2: its number must be below the 2 entries"),
        ([{"id": "x_0", "caption": "x"}], "must have the videos of"),
        ([{"id": "a_b_0", "caption": " "}], "`caption` must be a text, but is ' '"),
        ([{"id": "a_b_0"}], "`caption` must be a text, but is None"),
    ],
)
def test_mistakes_in_the_records_are_named(files: Path, records: Any, message: str) -> None:
    (files / "val.json").write_text(json.dumps(records))
    with pytest.raises(DataError) as error:
        YoucookMetaProcessor(config_of(files, "val.json", use_annotation_text=False), Split.TEST)
    assert message in str(error.value)
    assert str(files) in str(error.value)


def test_a_video_with_features_must_be_annotated(files: Path) -> None:
    np.save(files / "feat" / "x.npy", np.zeros((3, 512), np.float16))
    (files / "val.json").write_text(json.dumps([*RECORDS, {"id": "x_0", "caption": "x"}]))
    with pytest.raises(DataError, match=r"record x_0: .*trainval.json must have its video"):
        YoucookMetaProcessor(config_of(files, "val.json"), Split.TEST)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sentence": "x"}, "`segment` must be given"),
        ({"segment": [1], "sentence": "x"}, "`segment[1]` must be given"),
        ({"segment": [3, 3], "sentence": "x"}, "with start < end, but is [3, 3]"),
        ({"segment": [-1, 3], "sentence": "x"}, "`segment[0]` must be at least 0"),
        ({"segment": [1.5, 3], "sentence": "x"}, "`segment[0]` must be a whole number"),
        ({"segment": [1, float("nan")], "sentence": "x"}, "`segment[1]` must be a finite number"),
        ({"segment": [1, 3], "sentence": ""}, "`sentence` in"),
        ("x", "its content must be a mapping"),
    ],
)
def test_mistakes_in_the_annotation_are_named(files: Path, entry: Any, message: str) -> None:
    write_annotation(files, {**DATABASE, "c": {"annotations": [entry]}})
    with pytest.raises(DataError) as error:
        YoucookMetaProcessor(config_of(files), Split.TEST)
    assert message in str(error.value)
    assert "trainval.json: video c" in str(error.value) or "record c_0" in str(error.value)


@pytest.mark.parametrize(
    "value", [[], {"database": []}, {"database": {}}, {"database": {"a": {"annotations": 3}}}]
)
def test_an_annotation_of_another_kind_is_refused(files: Path, value: Any) -> None:
    (files / "trainval.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"trainval.json: .* It must be YouCook2's file"):
        YoucookMetaProcessor(config_of(files), Split.TEST)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,sentence\nvideo1,x\n", "must have the columns start, end, text"),
        (CSV.replace("12,7", "late,7"), "line 2: `end` must be a whole number"),
        (CSV.replace("12,7", "7,12"), "line 2: its content must be [start, end] in whole seconds"),
        (CSV.replace("eat the soup", " "), "line 4: `text` must not be empty"),
        (CSV + "40,0,1,eat the soup,c\n", "1 are listed again (first: c 0 40 'eat the soup')"),
    ],
)
def test_mistakes_in_a_csv_are_named(files: Path, text: str, message: str) -> None:
    (files / "val.csv").write_text(text)
    with pytest.raises(DataError) as error:
        YoucookMetaProcessor(config_of(files, "val.csv"), Split.TEST)
    assert message in str(error.value)


def test_records_need_an_annotation(files: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"`dataset.trainval_annotation` must be set, since .*val.pkl has no times",
    ):
        YoucookMetaProcessor(config_of(files, trainval_annotation=None), Split.TEST)


def test_a_pickle_with_code_is_refused(files: Path) -> None:
    (files / "val.pkl").write_bytes(pickle.dumps([random.Random]))
    with pytest.raises(DataError, match="only pickles of plain values"):
        YoucookMetaProcessor(config_of(files), Split.TEST)
