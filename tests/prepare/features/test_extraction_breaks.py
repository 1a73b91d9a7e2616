"""Tests of extraction that is killed, interrupted, shared between processes, or out of disk space.

No feature may be lost, and no file may be incomplete.
"""

import errno
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmpt.errors import DataError
from mmpt.prepare.features.feature_files import check_settings, extracting
from tests.support.extract_jobs import SECONDS, SMALL, contents, process, summary
from tests.support.videos import regular_times, truncate, write_video


@pytest.fixture
def whole(videos, run_extract, tmp_path_factory):
    """Returns the feature files of a run without interruption."""
    out = tmp_path_factory.mktemp("whole")
    assert run_extract(videos, out) == 0
    return contents(out)


# ---- reruns, parts and other processes


@pytest.mark.slow
def test_a_rerun_skips_complete_files_and_replaces_others(
    videos, run_extract, tmp_path
):
    run_extract(videos, tmp_path)
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    truncated = before["c.npy"][:-7]
    (tmp_path / "c.npy").write_bytes(truncated)
    too_narrow = np.zeros((3, 100), np.float16)
    np.save(tmp_path / "e.npy", too_narrow)
    assert run_extract(videos, tmp_path) == 0
    assert contents(tmp_path) == before
    changed = {path.stem for path, at in times.items() if path.stat().st_mtime_ns != at}
    assert changed == {"c", "e"}
    assert summary(tmp_path)["written"] == 2
    assert summary(tmp_path)["present"] == 3


@pytest.mark.spawn
def test_two_processes_extract_two_parts_at_the_same_time(videos, tmp_path, whole):
    first = process(videos, tmp_path, "--shard", "0/2", delay=0.05)
    second = process(videos, tmp_path, "--shard", "1/2", delay=0.05)
    assert first.wait(300) == 0
    assert second.wait(300) == 0
    for part, count in enumerate([3, 2]):
        report = summary(tmp_path, f"extract_summary_{part}_of_2.json")
        assert report["written"] == count
    assert contents(tmp_path) == whole


def test_a_part_that_another_process_extracts_is_an_error(
    videos, run_extract, tmp_path, capsys
):
    with extracting(tmp_path, 1, 2):
        assert run_extract(videos, tmp_path, "--shard", "1/2") == 2
        message = "another process extracts part 1 of 2 of these videos. Wait"
        assert message in capsys.readouterr().err
        assert run_extract(videos, tmp_path, "--shard", "0/2") == 0
    assert run_extract(videos, tmp_path, "--shard", "1/2") == 0


def test_reruns_still_report_the_problems_of_a_video(videos, run_extract, tmp_path):
    folder = tmp_path / "raw"
    out = tmp_path / "out"
    folder.mkdir()
    whole = write_video(tmp_path / "whole.mkv", regular_times(3), SMALL)
    truncate(whole, folder / "part.mkv", 0.6)
    (folder / "good.mp4").write_bytes((videos / "b.mp4").read_bytes())
    run_extract(folder, out)
    first = summary(out)["damaged"]
    assert list(first) == ["part"]
    notes = out / ".extract_notes.jsonl"
    cut_line = b'{"id": "good", "no\n'  # as after a full disk
    notes.write_bytes(notes.read_bytes() + cut_line)
    run_extract(folder, out)
    second = summary(out)
    assert second["damaged"] == first
    assert second["written"] == 0
    # The user replaces the video with an intact one.
    (out / "part.npy").unlink()
    (folder / "part.mkv").write_bytes(whole.read_bytes())
    run_extract(folder, out)
    assert summary(out)["damaged"] == {}


def test_processes_with_different_settings_cannot_use_the_same_folder(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        settings = [{"hflip": number % 2} for number in range(8)]
        checks = [threads.submit(check_settings, tmp_path, one) for one in settings]
    kept = json.loads((tmp_path / "extract_settings.json").read_text())
    for one, check in zip(settings, checks, strict=True):
        is_refused = isinstance(check.exception(), DataError)
        assert is_refused == (one != kept)


def test_features_with_other_settings_are_not_mixed(
    videos, run_extract, tmp_path, capsys
):
    assert run_extract(videos, tmp_path, "--limit", "1") == 0
    assert run_extract(videos, tmp_path, "--l2_normalize", "0") == 2
    assert "l2_normalize 1 (now 0)" in capsys.readouterr().err


def test_temporary_files_of_killed_runs_are_removed(videos, run_extract, tmp_path):
    (tmp_path / ".c.npy.abc.tmp").write_bytes(b"half")
    (tmp_path / ".of_another_part.npy.abc.tmp").touch()
    assert run_extract(videos, tmp_path) == 0
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [
        ".of_another_part.npy.abc.tmp"
    ]


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_an_interrupted_run_prints_a_message_and_can_be_continued(
    videos, run_extract, tmp_path, number, code
):
    child = process(videos, tmp_path, delay=0.3)
    child.stdout.readline()
    while not list(tmp_path.glob("*.npy")):
        time.sleep(0.02)
    child.send_signal(number)
    errors = child.communicate(timeout=120)[1]
    assert child.returncode == code
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert summary(tmp_path)["finished"] is False
    assert not list(tmp_path.glob(".*.tmp"))
    done = len(list(tmp_path.glob("*.npy")))
    assert 0 < done < len(SECONDS)
    assert run_extract(videos, tmp_path) == 0
    report = summary(tmp_path)
    assert report["present"] == done
    assert report["written"] == len(SECONDS) - done


# ---- disks


@pytest.mark.spawn
def test_a_write_that_fails_leaves_no_file(videos, tmp_path):
    """The size of files is limited to 700 bytes, which is enough for a header but not for rows."""
    child = process(videos, tmp_path, limit_bytes=700)
    errors = child.communicate(timeout=120)[1]
    assert child.returncode == 2
    assert errors.count("error:") == 1
    assert "cannot be written: the file is larger than `ulimit -f` allows" in errors
    assert contents(tmp_path) == {}


def test_a_full_disk_gives_a_message_and_ends_the_threads(
    videos, run_extract, tmp_path, capsys, monkeypatch
):
    def save(file, features):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", save)
    # Some threads of other tests and of torch never end.
    before = set(threading.enumerate())
    assert run_extract(videos, tmp_path) == 2
    message = "Make room or choose another folder, and run the same command again"
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == {}
    assert set(threading.enumerate()) <= before


def test_a_target_that_is_a_file_is_an_error(videos, run_extract, tmp_path, capsys):
    (tmp_path / "out").touch()
    assert run_extract(videos, tmp_path / "out") == 2
    assert "cannot be written" in capsys.readouterr().err
