"""Tests of finding videos in folders, lists and CSV files, of their ids, and of dividing them."""

import os
from pathlib import Path

import pytest

from mmpt.errors import DataError
from mmpt.media.video_list import VideoJob, files_in, find_videos, shard_of


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def ids_of(videos):
    return [job.video_id for job in videos.jobs]


def test_a_folder_is_searched_one_level_deep(tmp_path):
    touch(
        tmp_path,
        "b.mp4",
        "a.WEBM",
        "sub/c.d.mkv",
        "sub/deep/no.mp4",
        "a.vtt",
        ".no.mp4",
    )
    videos = find_videos([tmp_path], "f")
    assert ids_of(videos) == ["a", "b", "c.d"]
    nested = videos.jobs[2]
    assert nested.video == tmp_path / "sub/c.d.mkv"
    assert nested.feature == Path("f/c.d.npy")


def test_hidden_files_are_ignored(tmp_path):
    touch(tmp_path, "a.mp4", "._a.mp4", ".git/b.mp4", "deep/er/c.MP4", "deep/._c.mp4")
    for folder in (tmp_path, tmp_path / ".git"):
        (folder / "dir.mp4").mkdir()
    names = {path.name for path in files_in(tmp_path, [".mp4"])}
    assert names == {"a.mp4", "c.MP4"}
    # The folder itself may be hidden, or inside a hidden one, such as the cache of a hub.
    assert len(list(files_in(tmp_path / ".git", [".mp4"]))) == 1


def test_later_duplicates_replace_earlier_ones(tmp_path):
    touch(tmp_path, "one/x.mp4", "one/y.mp4", "two/x.webm")
    videos = find_videos([tmp_path / "one", tmp_path / "two"], "f")
    assert [job.video.name for job in videos.jobs] == ["y.mp4", "x.webm"]
    assert videos.duplicates == {"x": [str(tmp_path / "one/x.mp4")]}


def test_paths_of_a_list_may_be_relative_to_its_folder(tmp_path, monkeypatch):
    touch(tmp_path, "here/a.mp4", "there/b.mp4")
    lines = tmp_path / "there" / "videos.lst"
    lines.write_text(f"{tmp_path}/here/a.mp4\n\nb.mp4\nmissing.mp4\n")
    videos = find_videos([lines], "f")
    # A missing file is reported when it is opened.
    assert ids_of(videos) == ["a", "b", "missing"]
    assert [job.video.exists() for job in videos.jobs] == [True, True, False]
    monkeypatch.chdir(tmp_path / "here")
    lines.write_text("a.mp4\n")
    assert find_videos([lines], "f").jobs[0].video.exists()


def test_a_csv_file_may_name_ids_and_feature_files(tmp_path):
    table = tmp_path / "videos.csv"
    table.write_text(
        "id,video_path,feature_path\nfirst,/raw/a.mp4,\n,/raw/b.c.mp4,\n,/raw/d.mp4,part/e.npy\n"
    )
    videos = find_videos([table], "f")
    assert ids_of(videos) == ["first", "b.c", "e"]
    features = [str(job.feature) for job in videos.jobs]
    assert features == ["f/first.npy", "f/b.c.npy", "f/part/e.npy"]


def test_videos_whose_names_cannot_be_ids_are_left_out_of_folders(tmp_path):
    """An id must fit on a line of a list. It may have 236 bytes and letters of any language."""
    good = ["全角\u3000空白", "👩\u200d🍳", "ü" * 118, "-x", "a b", "%d"]
    bad = {"a\nb": "control", "tail ": "a space", "line\u2028end": "control"}
    bad[os.fsdecode(b"caf\xe9")] = "not UTF-8"
    for name in [*good, *bad]:
        touch(tmp_path, f"{name}.mp4")
    videos = find_videos([tmp_path], "f")
    assert sorted(ids_of(videos)) == sorted(good)
    reasons = {Path(video).stem: reason for video, reason in videos.misnamed.items()}
    assert reasons.keys() == bad.keys()
    for name, reason in reasons.items():
        assert bad[name] in reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path\na.mp4\n", "columns video_path"),
        (
            "a.csv",
            "id,video_path\nx/y,a.mp4\n",
            "line 2: the video id 'x/y' holds a slash",
        ),
        ("a.csv", "id,video_path\n..,a.mp4\n", "begins with a dot"),
        ("a.csv", 'id,video_path\n"x\ty",a.mp4\n', "control character"),
        ("a.csv", f"id,video_path\n{'x' * 237},a.mp4\n", "longer than 236 bytes"),
        ("a.csv", "id,video_path\nx,\n", "line 2: `video_path` must not be empty"),
        (
            "a.csv",
            "video_path,feature_path\na.mp4,../a.npy\n",
            "`feature_path` must end in .npy",
        ),
        (
            "a.csv",
            "id,video_path,feature_path\na,a.mp4,x.npy\nb,b.mp4,x.npy\n",
            "a and b have the",
        ),
        ("notes.md", "", "must be a folder"),
        ("binary.lst", "\udcff\udcfe", "not text in UTF-8"),
        ("missing", None, "no such folder"),
    ],
)
def test_a_bad_source_is_an_error_that_names_the_problem(
    tmp_path, name, content, message
):
    if content is not None:
        (tmp_path / name).write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=message):
        find_videos([tmp_path / name], "f")


@pytest.mark.parametrize("num", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("num_shards", [1, 2, 4, 10])
def test_parts_are_contiguous_and_contain_every_video_once(tmp_path, num, num_shards):
    jobs = [VideoJob(str(i), tmp_path, tmp_path) for i in range(num)]
    parts = [shard_of(jobs, part, num_shards) for part in range(num_shards)]
    assert [job for part in parts for job in part] == jobs
    size = -(-num // num_shards)
    num_full = num // max(1, size)
    for part in parts[:num_full]:
        assert len(part) == size
