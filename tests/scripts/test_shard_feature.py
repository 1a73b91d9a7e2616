"""Packing: the bytes of a naive concatenation, whatever interrupts it; unusable videos are named with a reason."""

import errno
import hashlib
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from video_feature_extractor.shard_feature import main

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.processors import packing
from mmpt.processors.packing import pack_features
from mmpt.processors.row_stream import RowStream, row_stream
from mmpt.processors.shard_layout import read_shard_meta, video_stem
from mmpt.utils.shardedtensor import ShardedTensor

LENGTHS = (4, 1, 7, 3, 12, 2, 5, 9, 6)
IDS = [f"video{number}" for number in range(len(LENGTHS))]


def feature(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.standard_normal((LENGTHS[number], 512)).astype(np.float16)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of features, a training list of the first seven and a validation list of the rest."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, name in enumerate(IDS):
        np.save(folder / f"{name}.npy", feature(number))
    (tmp_path / "train.lst").write_text("\n".join(IDS[:7]) + "\n")
    (tmp_path / "val.lst").write_text("\n".join(IDS[7:]) + "\n")
    return folder


def arguments(raw: Path, *more: object, target: str = "packed") -> list[str]:
    top = raw.parent
    lists = ["--train-list", top / "train.lst", "--val-list", top / "val.lst"]
    return [str(one) for one in ("--features", raw, "--target", top / target, *lists, "--shard-size", 3, *more)]


def hashes(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def naive_files(numbers: list[int], folder: Path) -> tuple[bytes, bytes]:
    """What NumPy writes of the concatenation."""
    arrays = [feature(number) for number in numbers]
    np.save(folder / "naive_data.npy", np.concatenate(arrays))
    np.save(folder / "naive_starts.npy", np.array([0, *np.cumsum([len(array) for array in arrays])], dtype=np.int64))
    return (folder / "naive_data.npy").read_bytes(), (folder / "naive_starts.npy").read_bytes()


# ---- the bytes


def test_a_stream_of_rows_gives_the_golden_files(tmp_path):
    root = Path(__file__).parents[1] / "parity" / "golden"
    golden = np.load(root / "sharded_tensor.npz")
    described = json.loads((root / "sharded_tensor.json").read_text())
    with row_stream(f"{tmp_path}/train_0", 3, np.dtype(np.float16)) as stream:
        for item in ("item0", "item1", "item2", "item3"):
            stream.append(golden[item])
    for part in ("data", "starts"):
        path = tmp_path / f"train_0_{part}.npy"
        np.testing.assert_array_equal(np.load(path), golden[part])
        wanted = described[path.name]
        assert path.stat().st_size == wanted["bytes"]
        assert path.read_bytes().startswith(wanted["npy_header"].encode("latin-1"))


def test_shards_equal_a_naive_concatenation(raw, tmp_path):
    assert main(arguments(raw)) == 0
    packed = tmp_path / "packed"
    for name, numbers in {"train_0": [0, 1, 2], "train_1": [3, 4, 5], "train_2": [6], "val_0": [7, 8]}.items():
        data, starts = naive_files(numbers, tmp_path)
        assert (packed / f"{name}_data.npy").read_bytes() == data
        assert (packed / f"{name}_starts.npy").read_bytes() == starts
    assert read_shard_meta(packed, Split.TRAIN) == {0: IDS[:3], 1: IDS[3:6], 2: IDS[6:7]}
    assert read_shard_meta(packed, Split.VALID) == {0: IDS[7:]}
    assert json.loads((packed / "train_not_packed.json").read_text()) == {}


def test_without_arguments_it_packs_howto100m(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/feat").mkdir(parents=True)
    (tmp_path / "data/how2").mkdir()
    raw.rename("data/feat/feat_how2_s3d")
    for split in ("train", "val"):
        (tmp_path / f"{split}.lst").rename(f"data/how2/how2_s3d_{split}.lst")
    assert main([]) == 0
    assert read_shard_meta("data/feat/feat_how2_s3d_shard_small", Split.TRAIN) == {0: IDS[:7]}


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f2", ">f4"])
def test_any_float_is_stored_as_float16(raw, tmp_path, dtype):
    np.save(raw / "video1.npy", feature(1).astype(dtype))
    np.save(raw / "video2.npy", np.asfortranarray(feature(2).astype(dtype)))
    assert main(arguments(raw)) == 0
    assert (tmp_path / "packed/train_0_data.npy").read_bytes() == naive_files([0, 1, 2], tmp_path)[0]


def test_ids_with_slashes_and_dots(raw, tmp_path):
    (raw / "folder").mkdir()
    names = ["folder/video.v2", ".hidden", "a.b.c", "ünï côdé"]
    for number, name in enumerate(names):
        np.save(raw / f"{name}.npy", feature(number))
    (tmp_path / "train.lst").write_text("\n".join(["../val", *names, "/etc/passwd"]))
    assert main(arguments(raw, "--shard-size", 10)) == 0
    assert read_shard_meta(tmp_path / "packed", Split.TRAIN) == {0: names}
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert skipped == dict.fromkeys(["../val", "/etc/passwd"], "the id leads out of the feature folder")


def test_repeated_ids_get_one_row(raw, tmp_path):
    (tmp_path / "train.lst").write_text("video0\nvideo1\n\nvideo0\n video1 \nvideo2\n")
    assert main(arguments(raw)) == 0
    assert read_shard_meta(tmp_path / "packed", Split.TRAIN) == {0: IDS[:3]}


# ---- videos that cannot be packed


def spoil(raw: Path) -> dict[str, str]:
    """Make six of nine files unusable; return {id: what the reason says}."""
    (raw / "video0.npy").unlink()
    (raw / "video1.npy").write_bytes((raw / "video1.npy").read_bytes()[:-1])
    np.save(raw / "video2.npy", np.zeros((3, 1024), np.float16))
    np.save(raw / "video3.npy", np.zeros((3, 512), np.int16))
    np.save(raw / "video4.npy", np.where(np.arange(512) == 77, np.nan, feature(4)))
    np.save(raw / "video5.npy", np.zeros((0, 512), np.float16))
    return {
        "video0": "no such file", "video1": "truncated", "video2": "[3, 1024]", "video3": "int16", "video4": "NaN",
        "video5": "no row",
    }  # fmt: skip


def test_unusable_videos_are_named_and_left_out(raw, tmp_path, caplog):
    wanted = spoil(raw)
    with caplog.at_level("WARNING"):
        assert main(arguments(raw)) == 0
    assert "6 of 7 listed train videos (85.71%)" in caplog.text
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert list(skipped) == list(wanted)
    assert all(wanted[name] in reason for name, reason in skipped.items())
    assert read_shard_meta(tmp_path / "packed", Split.TRAIN) == {0: [], 1: [], 2: ["video6"]}
    assert (tmp_path / "packed/train_2_data.npy").read_bytes() == naive_files([6], tmp_path)[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"no numpy", "not a .npy file"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f2'", "not a .npy file"),
        (b"\x93NUMPY\x09\x00", "not a .npy file of version 1 or 2"),
    ],
)
def test_files_of_another_kind_are_left_out(raw, tmp_path, content, reason):
    (raw / "video0.npy").write_bytes(content)
    assert main(arguments(raw)) == 0
    assert reason in json.loads((tmp_path / "packed/train_not_packed.json").read_text())["video0"]


def test_objects_infinities_and_folders_are_left_out(raw, tmp_path):
    np.save(raw / "video0.npy", np.array([["x"]], dtype=object), allow_pickle=True)
    np.save(raw / "video1.npy", np.full((2, 512), 1e6, np.float32))
    (raw / "video2.npy").unlink()
    (raw / "video2.npy").mkdir()
    assert main(arguments(raw)) == 0
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert "Python objects" in skipped["video0"]
    assert "beyond float16" in skipped["video1"]
    assert "cannot be read" in skipped["video2"]


def test_a_bound_on_what_is_left_out(raw, tmp_path, capsys):
    (raw / "video0.npy").unlink()
    assert main(arguments(raw, "--max-missing", "0.1")) == 2
    assert "1 of 7 listed train videos (14.29%)" in capsys.readouterr().err
    assert not (tmp_path / "packed/train_meta.json").exists()
    assert main(arguments(raw, "--max-missing", "0.2")) == 0


def test_no_video_at_all_is_an_error(raw, tmp_path, capsys):
    (tmp_path / "train.lst").write_text("other1\nother2\n")
    assert main(arguments(raw)) == 2
    assert "at least one must" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--features", "/no/such"], "/no/such: must be a folder"),
        (["--train-list", "/no/such.lst"], "/no/such.lst: no such file."),
        (["--shard-size", "0"], "`--shard-size` must be at least 1, but is 0."),
        (["--max-missing", "1.5"], "`--max-missing` must be from 0 to 1, but is 1.5."),
        (["--target", "/dev/null/packed"], "/dev/null/packed: cannot be written"),
    ],
)
def test_mistakes_are_told(raw, capsys, more, message):
    assert main(arguments(raw, *more)) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


# ---- breaks, reruns and company


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
    new = {path.name for path in packed.glob("train_*_data.npy") if path.stat().st_ino != inodes[path.name]}
    assert new == {"train_1_data.npy"}
    np.testing.assert_array_equal(ShardedTensor.load(video_stem(packed, Split.TRAIN, 1))[1], feature(8)[:5])
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
    """Pack in a forked process that is killed at its `moment`-th read, write or rename; True if it lived to the end."""
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
            assert {shard: len(ids) for shard, ids in read_shard_meta(packed, Split.TRAIN).items()} == {
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
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/packed: the disk is full")
    names = {path.name for path in (tmp_path / "packed").iterdir()}
    assert names == {".packing", "train_0_data.npy", "train_0_starts.npy"}
    assert main(arguments(raw)) == 0
    assert hashes(tmp_path / "packed") == hashes(tmp_path / "whole")


def test_one_failing_thread_stops_the_others(raw, tmp_path, monkeypatch):
    started = threading.Event()
    read = packing.read_features

    def slow(folder, video_id):
        if video_id == "video0":
            started.wait(10)
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
