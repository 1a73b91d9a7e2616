import json

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.endtasks.how2_clips import (
    How2ClipMetaProcessor,
    How2ClipVideoProcessor,
    How2FullVideoMetaProcessor,
    How2VideoProcessor,
    read_clips,
)
from mmpt.errors import DataError
from tests.processors.shard_data import make_data, make_video


def clip(start, end, text="stir the pot"):
    return {"start": start, "end": end, "text": text}


def write(path, videos, **changes):
    path.write_text(json.dumps({"format": 1, "videos": videos, **changes}))
    return str(path)


def test_clips_are_rows_of_the_val_shards(tmp_path):
    videos = [
        {"id": "video1011", "clips": [clip(0, 3), clip(2, 7, "chop")]},
        {"id": "video1002", "clips": [clip(5, 6, "mix")]},
    ]
    config = make_data(tmp_path).replace(test_path=write(tmp_path / "clips.json", videos))
    meta, video = (
        How2ClipMetaProcessor(config, Split.TEST),
        How2ClipVideoProcessor(config, Split.TEST),
    )
    assert [meta[i] for i in range(len(meta))] == [
        (("video1011", 0, 3), "stir the pot"),
        (("video1011", 2, 7), "chop"),
        (("video1002", 5, 6), "mix"),
    ]
    for number, start, end in ((1011, 0, 3), (1011, 2, 7), (1002, 5, 6)):
        np.testing.assert_array_equal(
            video((f"video{number}", start, end)), make_video(number)[1][start:end]
        )
    with pytest.raises(DataError, match=r"video absent: must be in .*val_meta\.json"):
        video(("absent", 0, 1))
    with pytest.raises(
        DataError, match=r"video video1002: a clip must end within the video's .* ends at 400"
    ):
        video(("video1002", 5, 400))


def test_whole_videos_have_all_their_sentences_and_seconds(tmp_path):
    videos = [
        {"id": "video1011", "clips": [clip(0, 3), clip(2, 7, "chop")]},
        {"id": "video1002", "clips": [clip(5, 6, "mix")]},
    ]
    config = make_data(tmp_path).replace(test_path=write(tmp_path / "clips.json", videos))
    meta, video = (
        How2FullVideoMetaProcessor(config, Split.TEST),
        How2VideoProcessor(config, Split.TEST),
    )
    assert [meta[i] for i in range(len(meta))] == [
        ("video1011", ["stir the pot", "chop"]),
        ("video1002", ["mix"]),
    ]
    np.testing.assert_array_equal(video("video1002"), make_video(1002)[1])
    assert video.has("video1002")
    assert video.has(("video1011", 0, 3))
    assert not video.has("absent")


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([{"id": "a", "clips": [clip(4, 6), clip(2, 9)]}], r"clips must be in time .* \[2, 9\)"),
        ([{"id": "a", "clips": [clip(4, 4)]}], r"not empty, but \[4, 4\)"),
        ([{"id": "a", "clips": [clip(-1, 4)]}], r"\[-1, 4\)"),
        (
            [{"id": "a", "clips": [clip(0.5, 4)]}],
            r"`videos\[0\].clips\[0\].start` must be a whole number",
        ),
        ([{"id": "a", "clips": [clip(0, 4, " ")]}], "text` must not be empty"),
        ([{"id": "a", "clips": [clip(0, 1)]}] * 2, "video a must be listed once"),
        ([{"id": 3, "clips": []}], r"`videos\[0\].id` must be text, but is 3"),
        ([], "`videos` must have a length of at least 1"),
        ({}, r'It must be \{"format": 1'),
    ],
)
def test_bad_clip_files(tmp_path, videos, message):
    with pytest.raises(DataError, match=message):
        read_clips(write(tmp_path / "clips.json", videos))


def test_a_clip_file_of_another_format(tmp_path):
    with pytest.raises(DataError, match="`format` must be 1, but is 2"):
        read_clips(write(tmp_path / "clips.json", [], format=2))
