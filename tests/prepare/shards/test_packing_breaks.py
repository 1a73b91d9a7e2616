"""Tests of packing that is killed, repeated, out of disk space, or run by several processes.

The result must have the same bytes, and no file may be incomplete.
"""

import errno
import os
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli.pack import main
from mmpt.prepare.shards import packing, reading
from mmpt.shards.feature_info import read_feature_info
from mmpt.shards.shardedtensor import ShardedTensor, read_shard_meta, video_stem
from mmpt.shards.writer import RowStream
from tests.support.feature_files import (
    IDS,
    arguments,
    feature,
    hashes,
    unreadable,
)


@pytest.fixture
def whole(raw, tmp_path) -> dict[str, str]:
    """Returns the hashes of the files of a run without interruption."""
    assert main(arguments(raw, target="whole")) == 0
    return hashes(tmp_path / "whole")


def test_only_shards_whose_inputs_changed_are_packed_again(raw, tmp_path):
    packed = tmp_path / "packed"

    def packed_now() -> list[str]:
        before = {path: path.stat().st_ino for path in packed.glob("*_data.npy")}
        assert main(arguments(raw)) == 0
        paths = sorted(packed.glob("*_data.npy"))
        return [path.name for path in paths if before.get(path) != path.stat().st_ino]

    assert len(packed_now()) == 4
    assert packed_now() == []
    np.save(raw / "video4.npy", feature(8)[:5])
    assert packed_now() == ["train_1_data.npy"]
    shard = ShardedTensor.load(video_stem(packed, Split.TRAIN, 1))
    np.testing.assert_array_equal(shard[1], feature(8)[:5])
    assert read_shard_meta(packed, Split.TRAIN)[1] == IDS[3:6]


def test_a_damaged_shard_is_packed_again(raw, tmp_path, whole):
    packed = tmp_path / "whole"
    (packed / "train_0_data.npy").write_bytes(b"x")
    (packed / "train_1_starts.npy").unlink()
    (packed / ".packing/train_2.json").write_text("{")
    assert main(arguments(raw, target="whole")) == 0
    assert hashes(packed) == whole


def test_a_file_that_could_not_be_read_is_read_again_by_a_rerun(raw, tmp_path):
    with unreadable(raw / "video1.npy"):
        assert main(arguments(raw)) == 0
    assert read_shard_meta(tmp_path / "packed", Split.TRAIN)[0] == ["video0", "video2"]
    assert main(arguments(raw)) == 0
    assert read_shard_meta(tmp_path / "packed", Split.TRAIN)[0] == IDS[:3]


def test_larger_shards_replace_smaller_ones(raw, tmp_path):
    main(arguments(raw, "--shard-size", 2))
    main(arguments(raw, "--shard-size", 5))
    main(arguments(raw, "--shard-size", 5, target="fresh"))
    assert hashes(tmp_path / "packed") == hashes(tmp_path / "fresh")


def run_and_die(raw: Path, moment: int) -> bool:
    """Packs in a forked process that kills itself before its read, write or rename number `moment`.

    Returns:
        Whether the process ended without being killed.
    """
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(function):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return call

        os.replace = counted(os.replace)
        RowStream.append = counted(RowStream.append)
        reading.read_features = counted(reading.read_features)
        os._exit(main(arguments(raw)))
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


@pytest.mark.spawn
def test_a_run_that_was_killed_at_any_moment_is_completed_by_a_rerun(
    raw, tmp_path, whole
):
    packed = tmp_path / "packed"
    for moment in range(1, 100, 3):
        for path in sorted(packed.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if run_and_die(raw, moment):
            break
        if (packed / "train_meta.json").exists():  # then all shards are complete
            shards = read_shard_meta(packed, Split.TRAIN)
            assert shards == {0: IDS[:3], 1: IDS[3:6], 2: IDS[6:7]}
        assert main(arguments(raw)) == 0
        assert hashes(packed) == whole, moment
    assert moment > 30


def test_a_full_disk_leaves_no_incomplete_files(
    raw, tmp_path, capsys, monkeypatch, whole
):
    append = RowStream.append
    num_calls = 0

    def full(self, rows):
        nonlocal num_calls
        num_calls += 1
        if num_calls == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(RowStream, "append", full)
        assert main(arguments(raw)) == 2
    wanted = f"error: {tmp_path}/packed/train_1_data.npy: cannot be written: the disk is full"
    assert capsys.readouterr().err.startswith(wanted)
    names = {path.name for path in (tmp_path / "packed").iterdir()}
    assert names == {".packing", "train_0_data.npy", "train_0_starts.npy"}
    assert main(arguments(raw)) == 0
    assert hashes(tmp_path / "packed") == whole


def test_a_failed_run_does_not_fix_the_width_of_later_runs(raw, tmp_path, capsys):
    for path in raw.glob("*.npy"):
        np.save(path, np.ones((10, 1, 768), np.float16))
    assert main(arguments(raw)) == 2
    message = capsys.readouterr().err
    assert "must hold floats of shape [seconds, width]" in message
    assert "but holds float16 of shape [10, 1, 768]" in message
    assert "Extract" not in message
    assert not (tmp_path / "packed/features.json").exists()
    for path in raw.glob("*.npy"):
        np.save(path, np.ones((10, 768), np.float16))
    assert main(arguments(raw)) == 0
    assert read_feature_info(tmp_path / "packed").width == 768
    before = hashes(tmp_path / "packed")
    for path in raw.glob("*.npy"):
        path.unlink()
    assert main(arguments(raw)) == 2
    message = "but has no feature files (an .h5 file must hold all videos, and be named"
    assert message in capsys.readouterr().err
    assert hashes(tmp_path / "packed") == before


@pytest.mark.spawn
def test_several_runs_may_pack_into_one_folder_at_the_same_time(raw, tmp_path, whole):
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(main(arguments(raw, "--workers", 3)))
        children.append(child)
    for child in children:
        _, status = os.waitpid(child, 0)
        assert status == 0
    assert hashes(tmp_path / "packed") == whole


def test_only_one_video_is_in_memory_at_a_time(tmp_path):
    ids = [str(number) for number in range(40)]  # 40 MB in one shard
    features = np.zeros((1000, 512), np.float16)
    for video_id in ids:
        np.save(tmp_path / f"{video_id}.npy", features)
    tracemalloc.start()
    packing.pack_features(
        tmp_path, tmp_path / "packed", Split.TRAIN, ids, shard_size=40
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6e6  # measured 3.2 MB for the file and the check for NaN
