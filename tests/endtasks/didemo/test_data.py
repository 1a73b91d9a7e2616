"""DiDeMo's queries: the items, the names of feature files, and messages about mistakes."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.config import DatasetConfig
from mmpt.endtasks.didemo.data import DiDeMoAligner, DiDeMoKey, DiDeMoMetaProcessor
from mmpt.errors import DataError
from tests.support.tiny_bert import tiny_bert

QUERY = {
    "video": "1@N0_1.avi",
    "description": "a dog",
    "times": [[1, 1], [1, 2], [0, 5], [1, 1]],
    "num_segments": 6,
}


def meta_of(
    folder: Path, *changes: dict[str, Any], names: tuple[str, ...] = ()
) -> DiDeMoMetaProcessor:
    path = folder / "didemo.json"
    path.write_text(json.dumps([QUERY | change for change in changes]))
    for name in names:
        (folder / f"{name}.npy").touch()
    config = DatasetConfig(test_path=str(path), vfeat_dir=str(folder))
    return DiDeMoMetaProcessor(config, Split.TEST)


def test_items_are_padded_to_the_largest_number_of_moments(tmp_path: Path) -> None:
    meta = meta_of(
        tmp_path, {}, {"video": "2.mov", "description": "a cat", "times": [[2, 3]] * 5}
    )
    times = ((1, 1), (1, 2), (0, 5), (1, 1), (-1, -1))
    assert meta[0] == (("1@N0_1", times), "a dog")
    assert meta[1] == (("2", ((2, 3),) * 5), "a cat")
    assert len(meta) == 2


def test_names_of_feature_files_may_include_the_suffix_of_the_video(
    tmp_path: Path,
) -> None:
    """Some videos are annotated with two suffixes, but were downloaded with one."""
    videos = ["a.mov", "b.avi", "c.mp4", "c.mov", "d.", "e"]
    queries = [{"video": video} for video in videos]
    meta = meta_of(tmp_path, *queries, names=("a.mov", "b", "c.mov", "e"))
    found = [key.video_id for key, _ in meta.items]
    assert found == ["a.mov", "b", "c.mov", "c.mov", "d", "e"]


def test_the_aligner_makes_a_batch_of_one_query(tmp_path: Path) -> None:
    config = DatasetConfig(bert_name=tiny_bert(tmp_path), max_video_len=4, max_len=14)
    aligner = DiDeMoAligner(config, Split.TEST)
    key = DiDeMoKey("a", ((1, 1), (-1, -1)))
    batch = aligner(key, np.ones((9, 512), np.float16), [110, 111], random.Random(0))
    assert batch["video_id"] == "a"
    assert batch["times"].tolist() == [[1, 1], [-1, -1]]
    assert batch["vmasks"].all()
    with pytest.raises(
        DataError, match="video a: a video must be at least a second long"
    ):
        aligner(key, np.ones((0, 512), np.float16), [110], random.Random(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": ""}, r"`\[1\].video` must not be empty, but is ''"),
        ({"description": None}, r"`\[1\].description` must be text, but is None"),
        ({"times": []}, r"`\[1\].times` must have a length of at least 1"),
        ({"times": [[0, 6]]}, r"`\[1\].times\[0\]\[1\]` must be below 6, but is 6"),
        (
            {"times": [[3, 2]]},
            r"must be \[start, end\] with start <= end, but is \[3, 2\]",
        ),
    ],
)
def test_mistakes_in_a_query(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        meta_of(tmp_path, {}, change)


@pytest.mark.parametrize(
    "content", ["{}", "[]", "[1]", "video_id,sentence\nvideo0,a\n"]
)
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other"
    path.write_text(content)
    with pytest.raises(DataError, match=r"It must be DiDeMo's file|not valid JSON"):
        DiDeMoMetaProcessor(
            DatasetConfig(test_path=str(path), vfeat_dir=str(tmp_path)), Split.TEST
        )


def test_repeated_queries_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(meta_of(tmp_path, {}, {}, {"description": "a cat"})) == 3
    assert (
        "2 of 3 rows share their caption with another (1@N0_1.avi: a dog)"
        in caplog.text
    )
