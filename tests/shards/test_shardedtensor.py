"""Tests of ragged tensors: reading rows, errors for damaged files, file descriptors and memory."""

import multiprocessing
import os
import pickle
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmpt.errors import DataError
from mmpt.shards import shardedtensor
from mmpt.shards.shardedtensor import ShardedTensor, open_shard

ROWS = [
    np.arange(6, dtype=np.float16).reshape(2, 3),
    np.zeros((0, 3), np.float16),
    np.ones((4, 3), np.float16),
]


@pytest.fixture
def stem(tmp_path):
    """Returns the stem of a saved tensor. It has dots, like the stems of caption shards."""
    path = str(tmp_path / "cap.bert.train_0.startends")
    ShardedTensor.from_list(ROWS).save(path)
    return path


@st.composite
def ragged_rows(draw):
    """Returns rows of one type and width, with any lengths and values, including NaN."""
    dtype = draw(st.sampled_from([np.float16, np.float32, np.int32, np.int64]))
    width = draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6))
    return [draw(arrays(dtype, (length, *width))) for length in lengths]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["r", None])
@given(rows=ragged_rows())
def test_rows_are_read_as_they_were_saved(mode, rows):
    with tempfile.TemporaryDirectory() as folder:
        ShardedTensor.from_list(rows).save(f"{folder}/train_0")
        shard = ShardedTensor.load(f"{folder}/train_0", mmap_mode=mode)
        assert shard.lengths().tolist() == [len(row) for row in rows]
        for row, want in enumerate(rows):
            np.testing.assert_array_equal(shard[row], want)
            assert shard[row].dtype == want.dtype


@pytest.mark.parametrize("mode", ["r", None])
def test_a_shard_is_two_files_with_numbered_rows(stem, mode):
    shard = ShardedTensor.load(stem, mmap_mode=mode)
    assert sorted(os.listdir(os.path.dirname(stem))) == [
        "cap.bert.train_0.startends_data.npy",
        "cap.bert.train_0.startends_starts.npy",
    ]
    assert len(shard) == 3
    assert not isinstance(shard[0], np.memmap)
    for row in (-1, 3):
        with pytest.raises(IndexError, match="of 3"):
            shard[row]
    if mode:
        with pytest.raises(ValueError, match="read-only"):
            shard[0][0, 0] = 1


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, ">i8"])
def test_starts_may_have_any_integer_dtype(stem, dtype):
    starts = np.array([0, 2, 2, 6], dtype=dtype)
    np.save(f"{stem}_starts.npy", starts)
    shard = ShardedTensor.load(stem, "r")
    np.testing.assert_array_equal(shard[2], ROWS[2])
    assert shard.lengths().tolist() == [2, 0, 4]


def test_fortran_order_version_2_headers_and_empty_files_are_read(tmp_path):
    want = np.arange(12, dtype=np.float32).reshape(4, 3)
    with open(tmp_path / "s_data.npy", "wb") as file:
        np.lib.format.write_array(file, np.asfortranarray(want), version=(2, 0))
    np.save(tmp_path / "s_starts.npy", np.array([0, 4]))
    shard = ShardedTensor.load(tmp_path / "s", "r")
    np.testing.assert_array_equal(shard[0], want)
    empty_rows = [want[:0], want[:0]]
    ShardedTensor.from_list(empty_rows).save(tmp_path / "s")
    shard = open_shard(str(tmp_path / "s"))
    assert shard[1].shape == (0, 3)


@pytest.mark.parametrize(
    ("starts", "found"),
    [
        ([1, 2, 6], "go from 1 to 6"),
        ([0, 2, 5], "go from 0 to 5"),
        ([0, 4, 2, 6], "fall to 2 at position 2"),
        ([], r"are int64 of shape \(0,\)"),
        ([[0, 6]], r"are int64 of shape \(1, 2\)"),
        ([0.0, 6.0], "are float64"),
    ],
)
def test_the_error_for_wrong_starts_names_the_file(stem, starts, found):
    np.save(f"{stem}_starts.npy", np.array(starts) if starts else np.zeros(0, np.int64))
    wanted = rf"_starts.npy: starts and data disagree: .* from 0 to 6, .*, but {found}.*again"
    with pytest.raises(DataError, match=wanted):
        ShardedTensor.load(stem, mmap_mode="r")


def changed(old: bytes, new: bytes):
    return lambda content: content.replace(old, new, 1)


@pytest.mark.parametrize("mode", ["r", None])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "not a complete .npy file"),
        (lambda content: content[:40], "not a complete .npy file"),
        (lambda content: b"", "not a complete .npy file"),
        (changed(b", }", b",  "), "not a complete .npy file"),
        # A negative size, for which NumPy gives the reason.
        (changed(b"(6,", b"(-6,"), ""),
    ],
)
def test_the_error_for_a_damaged_file_names_it(stem, mode, damage, message):
    path = Path(f"{stem}_data.npy")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"^{stem}_data\.npy: .*{message}"):
        ShardedTensor.load(stem, mmap_mode=mode)


def test_missing_files_and_python_objects_are_errors(stem):
    np.save(f"{stem}_data.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        ShardedTensor.load(stem, mmap_mode="r")
    os.unlink(f"{stem}_data.npy")
    with pytest.raises(DataError, match=r"_data\.npy: no such file"):
        ShardedTensor.load(stem, mmap_mode="r")


def test_a_failed_save_keeps_the_old_files(stem):
    shard = ShardedTensor.from_list(ROWS[:1])
    # Cannot be written; this fails after the data was written.
    shard.starts = np.array(["x"])
    with pytest.raises(ValueError, match="invalid literal"):
        shard.save(stem)
    assert ShardedTensor.load(stem).lengths().tolist() == [2, 0, 4]
    assert len(os.listdir(os.path.dirname(stem))) == 2


def test_each_shard_is_opened_once_and_keeps_no_file_descriptor(tmp_path, monkeypatch):
    opened = []
    real = shardedtensor._map_npy
    monkeypatch.setattr(
        shardedtensor, "_map_npy", lambda path: opened.append(path) or real(path)
    )
    for number in range(40):
        ShardedTensor.from_list(ROWS).save(tmp_path / f"s{number}")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for number in range(40):
            shard = open_shard(str(tmp_path / f"s{number}"))
            assert shard[2].sum() == 12
    assert len(opened) == 80
    # With NumPy's own maps, there would be 80.
    assert len(os.listdir("/proc/self/fd")) - before <= 0
    ShardedTensor.from_list(ROWS[:1]).save(tmp_path / "s0")
    assert len(open_shard(str(tmp_path / "s0"))) == 1


def _row_sum(shard, row):
    return float(shard[row].sum())


@pytest.mark.spawn
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_mapped_tensor_is_pickled_without_its_rows(stem, method):
    mapped = open_shard(stem)
    assert len(pickle.dumps(mapped)) < 500
    in_memory = ShardedTensor.from_list(ROWS)
    tasks = [(mapped, 0), (mapped, 2), (in_memory, 0), (in_memory, 2)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(_row_sum, tasks) == [15.0, 12.0, 15.0, 12.0]


def _page_tables_kb():
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(r"^VmPTE:\s*(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes)


@pytest.mark.slow
def test_page_tables_of_a_large_map_are_freed(tmp_path):
    """Reads 1,024 rows of 1 kB that are 2 MB apart, so that each needs its own page table.

    The file is sparse, so it takes no space on disk.
    """
    lengths = np.tile([1, 2047], 1024)
    header = {"descr": "<f2", "fortran_order": False, "shape": (2 << 20, 512)}
    with open(tmp_path / "s_data.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + (2 << 30))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    np.save(tmp_path / "s_starts.npy", starts)

    def growth_kb(rows_per_map):
        shard = ShardedTensor.load(tmp_path / "s", "r", rows_per_map=rows_per_map)
        before = _page_tables_kb()
        most = 0
        for row in range(0, 2048, 2):
            assert shard[row][0, 0] == 0
            most = max(most, _page_tables_kb() - before)
        return most

    assert growth_kb(64) < 500  # measured 164 kB
    assert growth_kb(10**9) > 1500  # measured 2,092 kB with one map for all rows


def test_rows_stay_valid_when_their_map_is_replaced(stem):
    shard = ShardedTensor.load(stem, "r", rows_per_map=1, large_map=0)
    held = [shard[2], shard[0], shard[2]]
    np.testing.assert_array_equal(held[0], ROWS[2])
    np.testing.assert_array_equal(held[1], ROWS[0])
    np.testing.assert_array_equal(held[2], ROWS[2])
    shorter = np.array(shard.data)[:-1]
    np.save(f"{stem}_data.npy", shorter)  # the file changed in the meantime
    with pytest.raises(DataError, match="starts and data disagree"):
        shard[0]
    # A tensor in memory has no map to replace.
    in_memory = ShardedTensor.from_list(ROWS)
    np.testing.assert_array_equal(in_memory[0], ROWS[0])
