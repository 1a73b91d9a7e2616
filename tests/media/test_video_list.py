"""Which videos are found in folders, lists and CSV files, under which ids, and how they are
divided.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmpt.errors import DataError
from mmpt.media.video_list import VideoJob, find_videos, shard_of


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def found(tmp_path, *sources):
    return [
        (job.video_id, str(job.video.relative_to(tmp_path)))
        for job in find_videos(sources, tmp_path / "f").jobs
    ]


def test_folder_and_one_level_of_folders_in_it(tmp_path):
    for name in (
        "raw/b.mp4",
        "raw/a.WEBM",
        "raw/sub/c.d.mkv",
        "raw/sub/deep/no.mp4",
        "raw/a.vtt",
        "raw/.no.mp4",
    ):
        touch(tmp_path / name)
    videos = find_videos([tmp_path / "raw"], tmp_path / "f")
    assert found(tmp_path, tmp_path / "raw") == [
        ("a", "raw/a.WEBM"),
        ("b", "raw/b.mp4"),
        ("c.d", "raw/sub/c.d.mkv"),
    ]
    assert videos.num_ignored == 1
    assert videos.jobs[2].feature == tmp_path / "f" / "c.d.npy"


def test_later_duplicates_replace_earlier_ones(tmp_path):
    for name in ("one/x.mp4", "one/y.mp4", "two/x.webm"):
        touch(tmp_path / name)
    videos = find_videos([tmp_path / "one", tmp_path / "two"], "f")
    assert found(tmp_path, tmp_path / "one", tmp_path / "two") == [
        ("y", "one/y.mp4"),
        ("x", "two/x.webm"),
    ]
    assert videos.duplicates == {"x": [str(tmp_path / "one/x.mp4")]}


def test_list_and_its_own_folder(tmp_path, monkeypatch):
    for name in ("here/a.mp4", "there/b.mp4"):
        touch(tmp_path / name)
    lines = tmp_path / "there" / "videos.lst"
    lines.write_text(f"{tmp_path}/here/a.mp4\n\nb.mp4\nmissing.mp4\n")
    assert [(job.video_id, job.video.name) for job in find_videos([lines], "f").jobs] == [
        ("a", "a.mp4"),
        ("b", "b.mp4"),
        ("missing", "missing.mp4"),  # reported when it is opened
    ]
    monkeypatch.chdir(tmp_path / "here")
    lines.write_text("a.mp4\n")
    assert find_videos([lines], "f").jobs[0].video.exists()


def test_csv_names_ids_and_features(tmp_path):
    table = tmp_path / "videos.csv"
    table.write_text(
        "id,video_path,feature_path\nfirst,/raw/a.mp4,\n,/raw/b.c.mp4,\n,/raw/d.mp4,part/e.npy\n"
    )
    jobs = find_videos([table], tmp_path / "f").jobs
    assert [job.video_id for job in jobs] == ["first", "b.c", "e"]
    assert [job.feature for job in jobs] == [
        tmp_path / "f" / name for name in ("first.npy", "b.c.npy", "part/e.npy")
    ]


def test_names_that_give_no_id_are_left_out_of_folders(tmp_path):
    """They could not stand in a list; 236 bytes and letters of any language can."""
    good = ["全角\u3000空白", "👩\u200d🍳", "ü" * 118, "-x", "a b", "%d"]
    bad = {
        "a\nb": "control",
        "tail ": "a space",
        "line\u2028end": "control",
        os.fsdecode(b"caf\xe9"): "not UTF-8",
    }
    for name in [*good, *bad]:
        touch(tmp_path / f"{name}.mp4")
    videos = find_videos([tmp_path], tmp_path / "f")
    assert sorted(job.video_id for job in videos.jobs) == sorted(good)
    assert {Path(video).stem for video in videos.misnamed} == set(bad)
    for video, reason in videos.misnamed.items():
        assert bad[Path(video).stem] in reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path\na.mp4\n", "column video_path"),
        ("", "column video_path"),
        ("video_path\n", "must hold a row"),
        ("id,video_path\nx/y,a.mp4\n", "line 2: the video id 'x/y' holds a slash"),
        ("id,video_path\n..,a.mp4\n", "begins with a dot"),
        ('id,video_path\n"x\ty",a.mp4\n', "control character"),
        (f"id,video_path\n{'x' * 237},a.mp4\n", "longer than 236 bytes"),
        ("id,video_path\nx,\n", "line 2: `video_path` must not be empty"),
        ("video_path,feature_path\na.mp4,../a.npy\n", "`feature_path` must end in .npy"),
        ("video_path,feature_path\na.mp4,a.txt\n", "`feature_path` must end in .npy"),
        (
            "id,video_path,feature_path\na,a.mp4,x.npy\nb,b.mp4,x.npy\n",
            "videos a and b have the same",
        ),
    ],
)
def test_bad_csv_says_what_is_wrong(tmp_path, content, message):
    table = tmp_path / "videos.csv"
    table.write_text(content)
    with pytest.raises(DataError, match=message):
        find_videos([table], "f")


def test_bad_sources_say_what_is_wrong(tmp_path):
    touch(tmp_path / "notes.md")
    (tmp_path / "binary.lst").write_bytes(b"\xff\xfe\x00")
    for name, message in [
        ("missing", "no such folder"),
        ("notes.md", "must be a folder"),
        ("binary.lst", "not text in UTF-8"),
    ]:
        with pytest.raises(DataError, match=message):
            find_videos([tmp_path / name], "f")


@pytest.mark.parametrize("num", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("num_shards", [1, 2, 4, 10])
def test_parts_are_contiguous_and_complete(tmp_path, num, num_shards):
    jobs = [VideoJob(str(i), tmp_path, tmp_path) for i in range(num)]
    parts = [shard_of(jobs, part, num_shards) for part in range(num_shards)]
    assert [job for part in parts for job in part] == jobs
    assert all(
        len(part) in (0, -(-num // num_shards))
        for part in parts[: num // max(1, -(-num // num_shards))]
    )
