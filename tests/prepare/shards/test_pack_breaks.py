"""Packing that is killed, out of disk, run again or by two at once: the same bytes, and nothing
half-written.
"""

import errno
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli.pack import main
from mmpt.errors import DataError
from mmpt.prepare.shards import packing
from mmpt.prepare.shards.packing import pack_features
from mmpt.shards.layout import read_shard_meta, video_stem
from mmpt.shards.row_stream import RowStream
from mmpt.shards.shardedtensor import ShardedTensor
from tests.prepare.shards.feature_files import IDS, arguments, feature, hashes


def test_a_second_run_writes_nothing(raw, tmp_path):
    main(arguments(raw))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "packed").glob("*_*_*.npy")}
    assert main(arguments(raw)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_shard_is_packed_again_when_one_of_its_inputs_changed(raw, tmp_path, monkeypatch):
    main(arguments(raw))
    packed = tmp_path / "packed"
    inodes = {path.name: path.stat().st_ino for path in packed.glob("train_*_data.npy")}
    np.save(raw / "video4.npy", feature(8)[:5])
    assert main(arguments(raw)) == 0
    new = {
        path.name
        for path in packed.glob("train_*_data.npy")
        if path.stat().st_ino != inodes[path.name]
    }
    assert new == {"train_1_data.npy"}
    np.testing.assert_array_equal(
        ShardedTensor.load(video_stem(packed, Split.TRAIN, 1))[1], feature(8)[:5]
    )
    assert read_shard_meta(packed, Split.TRAIN)[1] == IDS[3:6]


@pytest.mark.parametrize("damage", ["short", "lost", "manifest"])
def test_a_damaged_shard_is_packed_again(raw, tmp_path, damage):
    main(arguments(raw))
    packed = tmp_path / "packed"
    whole = hashes(packed)
    if damage == "short":
        (packed / "train_0_data.npy").write_bytes(b"x")
    elif damage == "lost":
        (packed / "train_1_starts.npy").unlink()
    else:
        (packed / ".packing/train_1.json").write_text("{")
    assert main(arguments(raw)) == 0
    assert hashes(packed) == whole


def test_a_file_that_could_not_be_read_is_tried_again(raw, tmp_path):
    whole = (raw / "video1.npy").read_bytes()
    (raw / "video1.npy").unlink()
    (raw / "video1.npy").symlink_to("video1.npy")  # ELOOP
    assert main(arguments(raw)) == 0
    manifest = json.loads((tmp_path / "packed/.packing/train_0.json").read_text())
    assert manifest["try_again"]
    (raw / "video1.npy").unlink()
    (raw / "video1.npy").write_bytes(whole)
    assert main(arguments(raw)) == 0
    assert read_shard_meta(tmp_path / "packed", Split.TRAIN)[0] == IDS[:3]


def test_larger_shards_replace_smaller_ones(raw, tmp_path):
    main(arguments(raw, "--shard-size", 2))
    main(arguments(raw, "--shard-size", 5))
    main(arguments(raw, "--shard-size", 5, target="fresh"))
    assert hashes(tmp_path / "packed") == hashes(tmp_path / "fresh")


def run_and_die(raw: Path, moment: int) -> bool:
    """Pack in a forked process that is killed at its `moment`-th read, write or rename; True if it
    lived to the end.
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
        packing.read_features = counted(packing.read_features)
        os._exit(main(arguments(raw, "--workers", 1)))
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(raw, tmp_path):
    main(arguments(raw, target="whole"))
    wanted = hashes(tmp_path / "whole")
    packed = tmp_path / "packed"
    for moment in range(1, 100, 3):
        for path in sorted(packed.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if run_and_die(raw, moment):
            break
        if (packed / "train_meta.json").exists():  # what is named is whole
            assert {
                shard: len(ids) for shard, ids in read_shard_meta(packed, Split.TRAIN).items()
            } == {
                0: 3,
                1: 3,
                2: 1,
            }
        assert main(arguments(raw)) == 0
        assert hashes(packed) == wanted, moment
    assert moment > 30


def test_killed_again_and_again_it_arrives(raw, tmp_path):
    main(arguments(raw, target="whole"))
    moment = 12  # every attempt finishes at least one more file
    for _ in range(20):
        if run_and_die(raw, moment):
            break
    assert hashes(tmp_path / "packed") == hashes(tmp_path / "whole")


def test_a_full_disk_leaves_nothing_half_written(raw, tmp_path, capsys, monkeypatch):
    main(arguments(raw, target="whole"))
    append, calls = RowStream.append, []

    def full(self, rows):
        calls.append(rows)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(RowStream, "append", full)
        assert main(arguments(raw, "--workers", 1)) == 2
    wanted = f"error: {tmp_path}/packed/train_1_data.npy: cannot be written: the disk is full"
    assert capsys.readouterr().err.startswith(wanted)
    names = {path.name for path in (tmp_path / "packed").iterdir()}
    assert names == {".packing", "train_0_data.npy", "train_0_starts.npy"}
    assert main(arguments(raw)) == 0
    assert hashes(tmp_path / "packed") == hashes(tmp_path / "whole")


def test_one_failing_thread_stops_the_others(raw, tmp_path, monkeypatch):
    started = threading.Event()
    read = packing.read_features

    def slow(folder, video_id):
        if video_id == "video0":
            started.wait(60)
            raise OSError(errno.EIO, "broken")
        started.set()
        return read(folder, video_id)

    monkeypatch.setattr(packing, "read_features", slow)
    with pytest.raises(DataError, match="broken"):
        pack_features(raw, tmp_path / "packed", Split.TRAIN, IDS, shard_size=3, workers=3)
    assert not [path for path in (tmp_path / "packed").iterdir() if path.name.endswith(".tmp")]


def test_two_processes_in_one_folder(raw, tmp_path):
    main(arguments(raw, target="whole"))
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(main(arguments(raw)))
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert hashes(tmp_path / "packed") == hashes(tmp_path / "whole")


def test_the_number_of_workers_changes_nothing(raw, tmp_path):
    main(arguments(raw, "--workers", 1, "--shard-size", 1, target="one"))
    main(arguments(raw, "--workers", 8, "--shard-size", 1, target="eight"))
    assert hashes(tmp_path / "one") == hashes(tmp_path / "eight")


def test_memory_holds_one_video_not_a_shard(tmp_path):
    import tracemalloc

    for number in range(40):  # 40 MB in one shard
        np.save(tmp_path / f"{number}.npy", np.zeros((1000, 512), np.float16))
    ids = [str(number) for number in range(40)]
    tracemalloc.start()
    pack_features(tmp_path, tmp_path / "packed", Split.TRAIN, ids, shard_size=40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6  # measured 3.2 MB: the file, and the test for NaN
