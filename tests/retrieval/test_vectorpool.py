"""The files of a vector pool, and the gathering of the vectors of all processes."""

import tracemalloc

import numpy as np
import pytest
import torch

import mmpt.utils.distributed as distributed
from mmpt.errors import DataError
from mmpt.retrieval import VideoVectorPool, remove_other_vectors
from mmpt.utils.distributed import World
from tests.support.ranks import run_group

KEY = "0123456789abcdef" * 4
POSITIONS = np.array([4, 5, 0, 1, 2, 3])
GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(6, 3, generator=GENERATOR)


def open_pool(folder, key=KEY, rank=0):
    return VideoVectorPool(POSITIONS, 3, folder, key, rank)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_vectors_are_returned_in_the_order_of_the_training_list(tmp_path):
    folder = tmp_path / "retri"
    pool = open_pool(folder)
    for part in ROWS.split([1, 3, 2]):
        pool.add(part)
    vectors = pool.gather(World())
    assert vectors.dtype == np.float16
    assert np.array_equal(vectors[POSITIONS], ROWS.half())
    pool.discard()
    assert names(folder) == []
    assert np.array_equal(vectors[POSITIONS], ROWS.half())


@pytest.mark.parametrize(
    ("per_piece", "num_bytes", "kept"), [(2, 24, 4), (2, 23, 2), (1, 23, 3)]
)
def test_a_pool_continues_after_the_last_complete_piece(
    tmp_path, per_piece, num_bytes, kept
):
    killed = open_pool(tmp_path)
    killed.add(ROWS)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:num_bytes])

    pool = VideoVectorPool(POSITIONS, 3, tmp_path, KEY, per_piece=per_piece)
    assert len(pool) == kept
    pool.add(ROWS[kept:])
    vectors = pool.gather(World())
    assert np.array_equal(vectors[POSITIONS], ROWS.half())


def test_a_pool_starts_with_the_rows_of_its_key_and_rank(tmp_path):
    pool = open_pool(tmp_path)
    pool.add(ROWS)
    same = open_pool(tmp_path)
    other_rank = open_pool(tmp_path, rank=1)
    other_key = open_pool(tmp_path, key="f" * 64)
    assert [len(same), len(other_rank), len(other_key)] == [6, 0, 0]


def test_files_of_other_keys_are_removed(tmp_path):
    open_pool(tmp_path, KEY, 0)
    open_pool(tmp_path, KEY, 3)
    open_pool(tmp_path, "f" * 64, 1)
    (tmp_path / "plan_e1.json").touch()
    remove_other_vectors(tmp_path, KEY)
    own = [f"vectors_{KEY[:16]}_r0.f16", f"vectors_{KEY[:16]}_r3.f16"]
    assert names(tmp_path) == ["plan_e1.json", *own]


def test_a_missing_folder_has_no_files_of_other_keys(tmp_path):
    folder = tmp_path / "nowhere"
    remove_other_vectors(folder, KEY)
    assert not folder.exists()


def test_invalid_vectors_are_counted_in_the_error(tmp_path):
    pool = open_pool(tmp_path)
    infinite = [np.inf, -np.inf, 0]
    not_a_number = [0, np.nan, 0]
    largest = [65504, -65504, 0]
    rows = torch.tensor([[1, 1, 1], infinite, not_a_number, largest])
    message = r"2 of 4 video vectors are not finite or beyond 65504 .*list position 0\)"
    with pytest.raises(DataError, match=message):
        pool.add(rows)
    too_large = torch.tensor([[0, 65505.0, 0]])  # float16 would round it to 65504
    with pytest.raises(
        DataError, match=r"1 of 1 video vectors are .*list position 4\)"
    ):
        pool.add(too_large)
    pool.add(rows[[0, 3]])
    assert len(pool) == 2


def test_a_full_disk_is_an_error_with_the_remedy(tmp_path):
    pool = open_pool(tmp_path)
    pool._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(
        DataError, match=r"vectors_.*r0\.f16: cannot be written: the disk is full"
    ):
        pool.add(ROWS)


NUM, DIM = 40_000, 256
"""Number and width of vectors, which take 20 MB in float16."""


def gather_half(world, folder):
    """Adds every second vector, gathers them, and writes the peak of memory and the vectors."""
    distributed.BLOCK_BYTES = 1 << 20
    positions = np.arange(world.rank, NUM, 2)
    pool = VideoVectorPool(positions, DIM, folder, KEY, world.rank)
    tracemalloc.start()
    for some in torch.from_numpy(positions).split(1000):
        numbers = some % 1999
        rows = numbers[:, None].expand(-1, DIM)
        pool.add(rows)
    vectors = pool.gather(world)
    _, peak = tracemalloc.get_traced_memory()
    column = np.zeros(0) if vectors is None else vectors[:, 5]
    np.savez(folder / f"rank{world.rank}.npz", peak=peak, column=column)


@pytest.mark.spawn
def test_rank_0_gets_all_vectors_within_the_memory_limits(tmp_path):
    run_group(gather_half, tmp_path, size=2)
    main = np.load(tmp_path / "rank0.npz")
    other = np.load(tmp_path / "rank1.npz")
    assert np.array_equal(main["column"], np.arange(NUM) % 1999)
    assert len(other["column"]) == 0
    assert main["peak"] < 28e6  # measured: 23 MB
    assert other["peak"] < 7e6  # measured: 2.4 MB
