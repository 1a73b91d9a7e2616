import json

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.endtasks.how2_clips.data import (
    How2ClipMetaProcessor,
    How2ClipVideoProcessor,
    How2FullVideoMetaProcessor,
    How2VideoProcessor,
    read_clips,
)
from mmpt.errors import DataError
from tests.support.shard_data import make_data, make_video


def clip(start, end, text="stir the pot"):
    return {"start": start, "end": end, "text": text}


def write(path, videos, **changes):
    path.write_text(json.dumps({"format": 1, "videos": videos, **changes}))
    return str(path)


def test_clips_and_whole_videos_are_rows_of_the_val_shards(tmp_path):
    videos = [
        {"id": "video1011", "clips": [clip(0, 3), clip(2, 7, "chop")]},
        {"id": "video1002", "clips": [clip(5, 6, "mix")]},
    ]
    config = make_data(tmp_path).replace(
        test_path=write(tmp_path / "clips.json", videos)
    )
    assert How2ClipMetaProcessor(config, Split.TEST).items == [
        (("video1011", 0, 3), "stir the pot"),
        (("video1011", 2, 7), "chop"),
        (("video1002", 5, 6), "mix"),
    ]
    assert How2FullVideoMetaProcessor(config, Split.TEST).items == [
        ("video1011", ["stir the pot", "chop"]),
        ("video1002", ["mix"]),
    ]
    clips, whole = (
        How2ClipVideoProcessor(config, Split.TEST),
        How2VideoProcessor(config, Split.TEST),
    )
    for number, start, end in ((1011, 2, 7), (1002, 5, 6)):
        expected = make_video(number)[1]
        np.testing.assert_array_equal(whole(f"video{number}"), expected)
        found = clips((f"video{number}", start, end))
        np.testing.assert_array_equal(found, expected[start:end])
    assert whole.has("video1002")
    assert clips.has(("video1011", 0, 3))
    assert not whole.has("absent")
    with pytest.raises(
        DataError, match=r"video video1002: a clip must end within .* ends at 400"
    ):
        clips(("video1002", 5, 400))


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (
            [{"id": "a", "clips": [clip(4, 6), clip(2, 9)]}],
            r"clips must be in time .* \[2, 9\)",
        ),
        ([{"id": "a", "clips": [clip(4, 4)]}], r"not empty, but \[4, 4\)"),
        ([{"id": "a", "clips": [clip(-1, 4)]}], r"\[-1, 4\)"),
        (
            [{"id": "a", "clips": [clip(0.5, 4)]}],
            r"clips\[0\].start` must be a whole number",
        ),
        ([{"id": "a", "clips": [clip(0, 4, " ")]}], "text` must not be empty"),
        (
            [{"id": "a", "clips": [clip(0, 1)]}] * 2,
            r"each video must be listed once.*\(first: a\)",
        ),
        ({}, r'It must be \{"format": 1'),
    ],
)
def test_bad_clip_files(tmp_path, videos, message):
    with pytest.raises(DataError, match=message):
        read_clips(write(tmp_path / "clips.json", videos))


def test_a_clip_file_of_another_format(tmp_path):
    with pytest.raises(DataError, match="`format` must be 1, but is 2"):
        read_clips(write(tmp_path / "clips.json", [], format=2))
