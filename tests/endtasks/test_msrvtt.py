"""MSR-VTT's lists, captions and questions: what an item is, and what each mistake says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.config import DatasetConfig
from mmpt.datasets import MMDataset, collate
from mmpt.endtasks.msrvtt import MSRVTTMetaProcessor, MSRVTTTextProcessor
from mmpt.endtasks.msrvtt_qa import MSRVTTQAMetaProcessor, MSRVTTQATextProcessor
from mmpt.errors import DataError
from mmpt.processors.downstream import DSAligner, VideoProcessor
from tests.tiny_bert import tiny_bert

TEST_CSV = (
    "key,vid_key,video_id,sentence\nret0,msr0,video0,cut the tomato\n"
    "ret1,msr1,video1,now we add salt\n"
)
QA_HEADER = "\tkey\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n"


def write(folder: Path, **files: str) -> dict[str, str]:
    """Write files; return their paths by name."""
    paths = {name: folder / f"{name}.txt" for name in files}
    for name, path in paths.items():
        path.write_text(files[name])
    return {name: str(path) for name, path in paths.items()}


def features(folder: Path, *numbers: int) -> str:
    (folder / "feat").mkdir(exist_ok=True)
    for n in numbers:
        np.save(folder / "feat" / f"video{n}.npy", np.full((3, 512), n, np.float16))
    return str(folder / "feat")


def items_of(meta: Any) -> list[Any]:
    return [meta[index] for index in range(len(meta))]


def captions_json(**captions: list[str]) -> str:
    return json.dumps(
        {
            "sentences": [
                {"video_id": v, "caption": c} for v, texts in captions.items() for c in texts
            ]
        }
    )


def test_test_items(tmp_path: Path) -> None:
    """Videos without features stay: scoring names them."""
    config = DatasetConfig(
        test_path=write(tmp_path, test=TEST_CSV)["test"], vfeat_dir=str(tmp_path)
    )
    meta = MSRVTTMetaProcessor(config, Split.TEST)
    assert items_of(meta) == [("video0", "cut the tomato"), ("video1", "now we add salt")]


def test_training_items(tmp_path: Path) -> None:
    """The full test list extends training only if the ids to leave out are given too; the whole
    table is repeated.
    """
    full = "video_id,sentence\nvideo0,a\nvideo7,b\nvideo8,c\n"
    files = write(tmp_path, train="video_id\nvideo5\nvideo6\n", full=full, test=TEST_CSV)
    settings: dict[str, Any] = {
        "train_path": files["train"],
        "vfeat_dir": features(tmp_path, 0, 5, 6, 7, 8),
        "dup": 2,
    }
    both = {"full_test_path": files["full"], "jsfusion_path": files["test"]}
    for extra, expected in (
        ({}, [5, 6]),
        ({"jsfusion_path": files["test"]}, [5, 6]),
        ({"full_test_path": files["full"]}, [5, 6]),
        (both, [5, 6, 7, 8]),
    ):
        meta = MSRVTTMetaProcessor(DatasetConfig(**settings, **extra), Split.TRAIN)
        assert items_of(meta) == [(f"video{n}", f"video{n}") for n in expected] * 2


def training_set(folder: Path, **settings: Any) -> MMDataset:
    captions = {
        f"video{n}": [f"cut the {word}" for word in ("tomato", "salt", "onion")] for n in (0, 1)
    }
    files = write(folder, train="video_id\nvideo0\nvideo1\n", captions=captions_json(**captions))
    config = DatasetConfig(
        bert_name=tiny_bert(folder),
        vfeat_dir=features(folder, 0, 1),
        train_path=files["train"],
        json_path=files["captions"],
        max_video_len=4,
        max_len=20,
        dup=10,
        **settings,
    )
    parts = (
        part(config, Split.TRAIN)
        for part in (MSRVTTMetaProcessor, VideoProcessor, MSRVTTTextProcessor, DSAligner)
    )
    return MMDataset(*parts, seed=1)


def test_training_draws_depend_on_epoch_and_index_only(tmp_path: Path) -> None:
    dataset = training_set(tmp_path)
    first = [dataset.item(n, 1)["caps"].tolist() for n in range(20)]
    assert [dataset.item(n, 1)["caps"].tolist() for n in reversed(range(20))] == first[::-1]
    assert [dataset.item(n, 2)["caps"].tolist() for n in range(20)] != first
    assert len({tuple(caps) for caps in first}) == 3
    batch = collate([dataset[n] for n in range(20)])
    assert batch["caps"].shape == (20, 16)
    assert batch["video_id"] == ["video0", "video1"] * 10


def test_a_listed_video_without_captions(tmp_path: Path) -> None:
    dataset = training_set(tmp_path)
    dataset.text.captions.pop("video1")
    with pytest.raises(DataError, match="must have captions of video video1"):
        dataset[1]


def test_empty_training_captions_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, captions=captions_json(video0=["a", " "], video1=["", "b"]))["captions"]
    text = MSRVTTTextProcessor(DatasetConfig(json_path=path), Split.TRAIN)
    assert text.captions == {"video0": ["a"], "video1": ["b"]}
    assert "2 of 4 captions are empty" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"sentences": []}',
        '{"sentences": [3]}',
        '{"sentences": [{"video_id": "v"}]}',
        '{"database": {}}',
        "x",
    ],
)
def test_other_caption_files(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, captions=content)["captions"]
    with pytest.raises(DataError, match=r"It must be MSR-VTT's file|not valid JSON"):
        MSRVTTTextProcessor(DatasetConfig(json_path=path), Split.TRAIN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video_id\nvideo0\n", "must have the column sentence"),
        (QA_HEADER, "must have the columns video_id, sentence"),
        (TEST_CSV + "ret2,msr2,video2,\n", "line 4: `sentence` must not be empty"),
        (
            TEST_CSV + "ret2,msr0,video0,salt\n",
            r"`video_id` must be listed once, but video0 is on lines 2 and 4",
        ),
    ],
)
def test_other_test_files(tmp_path: Path, content: str, message: str) -> None:
    config = DatasetConfig(test_path=write(tmp_path, test=content)["test"])
    with pytest.raises(DataError, match=message):
        MSRVTTMetaProcessor(config, Split.TEST)


def test_duplicate_captions_are_counted_in_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, test=TEST_CSV + "ret2,msr2,video2,cut the tomato\n")["test"]
    assert len(MSRVTTMetaProcessor(DatasetConfig(test_path=path), Split.TEST)) == 3
    (warning,) = caplog.messages
    assert "2 of 3 rows share their caption with another (cut the tomato)" in warning


def question(number: int, answer: object) -> str:
    return f"{number}\tmc{number}\tmsr{number}\ta dog\ta cat\tsalt\tthe pot\t tea \t{answer}\n"


def test_questions(tmp_path: Path) -> None:
    path = write(tmp_path, qa=QA_HEADER + question(7010, 3) + question(7011, 0))["qa"]
    meta = MSRVTTQAMetaProcessor(DatasetConfig(test_path=path), Split.TEST)
    assert items_of(meta) == [
        (f"video{n}", (a, ["a dog", "a cat", "salt", "the pot", "tea"]))
        for n, a in ((7010, 3), (7011, 0))
    ]
    text = MSRVTTQATextProcessor(DatasetConfig(bert_name=tiny_bert(tmp_path)), Split.TEST)
    answer, ids = text(meta[0][1])
    assert answer == 3
    assert ids == [text.encode(words) for words in ("a dog", "a cat", "salt", "the pot", "tea")]


@pytest.mark.parametrize("answer", ["5", "-1", "1.5", "b"])
def test_answers_out_of_range(tmp_path: Path, answer: str) -> None:
    path = write(tmp_path, qa=QA_HEADER + question(7010, 1) + question(7011, answer))["qa"]
    with pytest.raises(DataError, match=rf"line 3: `answer` must be .*, but is '{answer}'"):
        MSRVTTQAMetaProcessor(DatasetConfig(test_path=path), Split.TEST)


def test_other_question_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, qa=TEST_CSV)["qa"]
    with pytest.raises(
        DataError,
        match=r"must have the columns vid_key, a1, .*, answer \(cells separated by tabs\)",
    ):
        MSRVTTQAMetaProcessor(DatasetConfig(test_path=path), Split.TEST)
    path = write(tmp_path, qa=QA_HEADER + question(1, 1).replace("a cat", "a dog"))["qa"]
    MSRVTTQAMetaProcessor(DatasetConfig(test_path=path), Split.TEST)
    assert "1 of 1 questions have an answer twice" in caplog.text
