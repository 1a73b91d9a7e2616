"""The items of MSR-VTT's lists, captions and questions, and messages about mistakes."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.config import DatasetConfig
from mmpt.config.sections import joined
from mmpt.datasets import MMDataset, collate
from mmpt.endtasks.msrvtt.data import MSRVTTMetaProcessor, MSRVTTTextProcessor
from mmpt.endtasks.msrvtt_qa.data import MSRVTTQAMetaProcessor
from mmpt.endtasks.msrvtt_qa.evaluation import QAMetric, QAOutputs
from mmpt.errors import DataError
from mmpt.processors.downstream import DSAligner, VideoProcessor
from tests.support.tiny_bert import tiny_bert

TEST_CSV = (
    "key,vid_key,video_id,sentence\nret0,msr0,video0,cut the tomato\n"
    "ret1,msr1,video1,now we add salt\n"
)
QA_HEADER = "\tkey\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n"


def write(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


def features(folder: Path, *numbers: int) -> str:
    for n in numbers:
        np.save(folder / f"video{n}.npy", np.full((3, 512), n, np.float16))
    return str(folder)


def items_of(folder: Path, content: str) -> list[Any]:
    path = write(folder / "test.csv", content)
    config = DatasetConfig(test_path=path, vfeat_dir=str(folder))
    return list(MSRVTTMetaProcessor(config, Split.TEST).items)


def test_items_for_testing(tmp_path: Path) -> None:
    """Videos without features are kept, because scoring names them."""
    expected = [("video0", "cut the tomato"), ("video1", "now we add salt")]
    assert items_of(tmp_path, TEST_CSV) == expected


def test_items_for_training(tmp_path: Path) -> None:
    """The full test list is used for training only if the ids to leave out are given, too.

    The whole list is repeated `dup` times.
    """
    train = write(tmp_path / "train.csv", "video_id\nvideo5\nvideo6\n")
    full = write(
        tmp_path / "full.csv", "video_id,sentence\nvideo0,a\nvideo7,b\nvideo8,c\n"
    )
    tested = write(tmp_path / "test.csv", TEST_CSV)
    vfeat_dir = features(tmp_path, 0, 5, 6, 7, 8)
    for extra, expected in (
        ({}, [5, 6]),
        ({"jsfusion_path": tested}, [5, 6]),
        ({"full_test_path": full}, [5, 6]),
        ({"full_test_path": full, "jsfusion_path": tested}, [5, 6, 7, 8]),
    ):
        config = MSRVTTMetaProcessor.Config(
            train_path=train, vfeat_dir=vfeat_dir, dup=2, **extra
        )
        videos = [f"video{n}" for n in expected]
        assert (
            MSRVTTMetaProcessor(config, Split.TRAIN).items
            == [(v, v) for v in videos] * 2
        )


def training_set(folder: Path) -> MMDataset:
    """Two videos with three captions each, and an empty one, repeated ten times."""
    sentences = []
    for video_id in ("video0", "video1"):
        for caption in ("cut the tomato", " ", "cut the salt", "cut the onion"):
            sentences.append({"video_id": video_id, "caption": caption})
    config = joined(MSRVTTMetaProcessor.Config, MSRVTTTextProcessor.Config)(
        bert_name=tiny_bert(folder),
        vfeat_dir=features(folder, 0, 1),
        train_path=write(folder / "train.csv", "video_id\nvideo0\nvideo1\n"),
        json_path=write(folder / "captions.json", json.dumps({"sentences": sentences})),
        max_video_len=4,
        max_len=20,
        dup=10,
    )
    parts = (MSRVTTMetaProcessor, VideoProcessor, MSRVTTTextProcessor, DSAligner)
    return MMDataset(*(part(config, Split.TRAIN) for part in parts), seed=1)


def test_training_draws_depend_only_on_the_epoch_and_the_index(tmp_path: Path) -> None:
    dataset = training_set(tmp_path)

    def captions(order: Iterable[int], epoch: int) -> list[list[int]]:
        return [dataset.item(n, epoch)["caps"].tolist() for n in order]

    first = captions(range(20), epoch=1)
    assert captions(reversed(range(20)), epoch=1) == first[::-1]
    assert captions(range(20), epoch=2) != first
    assert len({tuple(caps) for caps in first}) == 3  # the empty caption is left out
    batch = collate([dataset[n] for n in range(20)])
    assert batch["caps"].shape == (20, 16)
    assert batch["video_id"] == ["video0", "video1"] * 10
    dataset.text.captions.pop("video1")
    with pytest.raises(DataError, match="must have captions of video video1"):
        dataset[1]


@pytest.mark.parametrize(
    "content", ["[]", '{"sentences": []}', '{"sentences": [3]}', "x"]
)
def test_other_caption_files_are_refused(tmp_path: Path, content: str) -> None:
    config = MSRVTTTextProcessor.Config(
        json_path=write(tmp_path / "captions.json", content)
    )
    with pytest.raises(DataError, match=r"It must be MSR-VTT's file|not valid JSON"):
        MSRVTTTextProcessor(config, Split.TRAIN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video_id\nvideo0\n", "must have the columns sentence"),
        (QA_HEADER, "must have the columns video_id, sentence"),
        (TEST_CSV + "ret2,msr2,video2,\n", "line 4: `sentence` must not be empty"),
        (
            TEST_CSV + "ret2,msr0,video0,salt\n",
            r"once, but 1 are listed again \(first: video0\)",
        ),
    ],
)
def test_other_test_files_are_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        items_of(tmp_path, content)


def test_duplicate_captions_are_counted_in_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(items_of(tmp_path, TEST_CSV + "ret2,msr2,video2,cut the tomato\n")) == 3
    (warning,) = caplog.messages
    assert "2 of 3 rows share their caption with another (cut the tomato)" in warning


def questions(folder: Path, *answers: object) -> list[Any]:
    rows = [
        f"{n}\tmc\tmsr70{n}\ta dog\ta cat\tsalt\ta\t b \t{a}\n"
        for n, a in enumerate(answers)
    ]
    path = write(folder / "qa.tsv", QA_HEADER + "".join(rows))
    return list(MSRVTTQAMetaProcessor(DatasetConfig(test_path=path), Split.TEST).items)


def test_questions(tmp_path: Path) -> None:
    texts = ["a dog", "a cat", "salt", "a", "b"]
    assert questions(tmp_path, 3, 0) == [
        ("video700", (3, texts)),
        ("video701", (0, texts)),
    ]
    for answer in ("5", "-1", "1.5", "b"):
        with pytest.raises(
            DataError, match=rf"line 3: `answer` must be .*, but is '{answer}'"
        ):
            questions(tmp_path, 1, answer)


@pytest.mark.parametrize("answer", range(5))
def test_a_collapsed_model_is_at_chance_for_any_position_of_the_answers(
    answer: int,
) -> None:
    scores = np.ones((9, 5), np.float32)
    outputs = QAOutputs(scores=scores, answers=np.full(9, answer), video_ids=["v"] * 9)
    assert (
        QAMetric().compute(outputs)
        == QAMetric().chance(outputs)
        == {"acc": pytest.approx(0.2)}
    )
