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
ROWS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def open_pool(folder, key=KEY, rank=0):
    return VideoVectorPool(POSITIONS, 3, folder, key, rank)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_vectors_come_back_in_the_order_of_the_training_list(tmp_path):
    pool = open_pool(tmp_path / "retri")
    for part in ROWS.split([1, 3, 2]):
        pool.add(part)
    vectors = pool.gather(World())
    assert vectors.dtype == np.float16
    assert np.array_equal(vectors[POSITIONS], ROWS.half())
    pool.discard()
    assert names(tmp_path / "retri") == []
    assert np.array_equal(vectors[POSITIONS], ROWS.half())


@pytest.mark.parametrize(("per_piece", "num_bytes", "kept"), [(2, 24, 4), (2, 23, 2), (1, 23, 3)])
def test_a_pool_continues_after_the_last_complete_piece(tmp_path, per_piece, num_bytes, kept):
    killed = open_pool(tmp_path)
    killed.add(ROWS)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:num_bytes])
    pool = VideoVectorPool(POSITIONS, 3, tmp_path, KEY, per_piece=per_piece)
    assert len(pool) == kept
    pool.add(ROWS[kept:])
    assert np.array_equal(pool.gather(World())[POSITIONS], ROWS.half())
    assert len(open_pool(tmp_path)) == 6
    assert len(open_pool(tmp_path, rank=1)) == len(open_pool(tmp_path, key="f" * 64)) == 0


def test_files_of_other_keys_are_removed(tmp_path):
    for key, rank in ((KEY, 0), (KEY, 3), ("f" * 64, 1)):
        open_pool(tmp_path, key, rank)
    (tmp_path / "plan_e1.json").touch()
    remove_other_vectors(tmp_path, KEY)
    own = [f"vectors_{KEY[:16]}_r{rank}.f16" for rank in (0, 3)]
    assert names(tmp_path) == ["plan_e1.json", *own]
    remove_other_vectors(tmp_path / "nowhere", KEY)


def test_broken_vectors_are_counted(tmp_path):
    pool = open_pool(tmp_path)
    broken = torch.tensor([[1, 1, 1], [np.inf, -np.inf, 0], [0, np.nan, 0], [65504, -65504, 0]])
    with pytest.raises(
        DataError, match=r"2 of 4 video vectors are not finite or beyond 65504 .*list position 0\)"
    ):
        pool.add(broken)
    with pytest.raises(DataError, match=r"1 of 1 video vectors are .*list position 4\)"):
        pool.add(torch.tensor([[0, 65505.0, 0]]))  # float16 would round it to 65504
    pool.add(broken[[0, 3]])
    assert len(pool) == 2


def test_a_full_disk_is_an_error_with_the_remedy(tmp_path):
    pool = open_pool(tmp_path)
    pool._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(DataError, match=r"vectors_.*r0\.f16: cannot be written: the disk is full"):
        pool.add(ROWS)


NUM, DIM = 40_000, 256
"""20 MB of float16."""


def _gather(world, folder):
    distributed.BLOCK_BYTES = 1 << 20
    positions = np.arange(world.rank, NUM, 2)
    pool = VideoVectorPool(positions, DIM, folder, KEY, world.rank)
    tracemalloc.start()
    for some in torch.from_numpy(positions).split(1000):
        pool.add((some % 1999)[:, None].expand(-1, DIM))
    vectors = pool.gather(world)
    peak = tracemalloc.get_traced_memory()[1]
    assert peak < (28e6 if world.is_main else 7e6)  # measured: 23 MB and 2.4 MB
    assert (vectors is None) != world.is_main
    if vectors is not None:
        assert np.array_equal(vectors[:, 5], np.arange(NUM) % 1999)


@pytest.mark.spawn
def test_rank_0_gets_all_vectors_within_the_memory_limits(tmp_path):
    run_group(_gather, tmp_path, size=2)
