"""Banks outlive their process, are believed by their key only, and bound the memory of gathering."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

import mmpt.utils.distributed as distributed
from mmpt.errors import DataError
from mmpt.retrieval import VectorBank, VideoVectorPool, remove_other_banks
from mmpt.utils.distributed import World
from tests.ranks import run_ranks

KEY = "0123456789abcdef" * 4
SHAPE = (50, 6)
ROWS = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float16)


def filled(folder: Path, places: Any, rank: int = 0, key: str = KEY) -> VectorBank:
    bank = VectorBank(folder, key, rank, SHAPE)
    pool = VideoVectorPool(*SHAPE, bank)
    pool.add(np.array(places), ROWS[places])
    pool.keep()
    return bank


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rows_are_there_after_another_opening(tmp_path: Path) -> None:
    places = [40, 41, 3, 7, 6, 49]
    filled(tmp_path, places).close()
    bank = VectorBank(tmp_path, KEY, 0, SHAPE)
    assert np.flatnonzero(bank.known_N).tolist() == sorted(places)
    assert np.array_equal(bank[np.array(places)], ROWS[places])
    assert np.array_equal(bank.whole()[places], ROWS[places])
    whole = bank.whole()
    bank.remove()
    assert names(tmp_path) == []
    assert np.array_equal(whole[places], ROWS[places])


def test_rows_that_were_not_kept_are_not_known(tmp_path: Path) -> None:
    bank = filled(tmp_path, [1, 2])
    VideoVectorPool(*SHAPE, bank).add(np.array([5]), ROWS[[5]])  # killed before it is kept
    assert np.flatnonzero(VectorBank(tmp_path, KEY, 0, SHAPE).known_N).tolist() == [1, 2]


@pytest.mark.parametrize("change", [{"key": KEY[:-1] + "0"}, {"shape": [50, 7]}, {"format": 0}])
def test_a_record_of_something_else_is_not_believed(tmp_path: Path, change: dict[str, Any]) -> None:
    filled(tmp_path, [1, 2]).close()
    record = tmp_path / f"bank_{KEY[:16]}_r0.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    assert not VectorBank(tmp_path, KEY, 0, SHAPE).known_N.any()
    assert not record.exists()


def test_a_damaged_record_is_as_good_as_none(tmp_path: Path) -> None:
    filled(tmp_path, [1, 2]).close()
    record = tmp_path / f"bank_{KEY[:16]}_r0.json"
    record.write_text(record.read_text()[:40])
    assert not VectorBank(tmp_path, KEY, 0, SHAPE).known_N.any()


def test_a_file_that_was_cut_is_not_believed(tmp_path: Path) -> None:
    filled(tmp_path, [1, 49]).close()
    (path,) = tmp_path.glob("*.f16")
    path.write_bytes(path.read_bytes()[:-1])
    assert not VectorBank(tmp_path, KEY, 0, SHAPE).known_N.any()


def test_banks_of_other_keys_are_removed(tmp_path: Path) -> None:
    filled(tmp_path, [1]).close()
    filled(tmp_path, [1], rank=3).close()
    filled(tmp_path, [1], rank=1, key="f" * 64).close()
    (tmp_path / "plan_e1.json").touch()
    (tmp_path / f".bank_{'f' * 16}_r0.json.abc.tmp").touch()
    (tmp_path / f".bank_{KEY[:16]}_r1.json.abc.tmp").touch()  # another process writes it at this moment
    remove_other_banks(tmp_path, KEY)
    own = [f"bank_{KEY[:16]}_r{rank}.{kind}" for rank in (0, 3) for kind in ("f16", "json")]
    assert names(tmp_path) == sorted([*own, "plan_e1.json", f".bank_{KEY[:16]}_r1.json.abc.tmp"])
    remove_other_banks(tmp_path / "nowhere", KEY)


def test_what_more_processes_have_left_is_taken_over(tmp_path: Path) -> None:
    for rank, places in enumerate([[0, 1], [10, 11, 12], [1, 20], [30]]):
        filled(tmp_path, places, rank).close()
    for rank, expected in ((0, [0, 1, 20]), (1, [10, 11, 12, 30])):
        bank = VectorBank(tmp_path, KEY, rank, SHAPE)
        bank.adopt(World(rank=rank, size=2))
        assert np.flatnonzero(bank.known_N).tolist() == expected
        assert np.array_equal(bank[np.array(expected)], ROWS[expected])
    assert names(tmp_path) == [f"bank_{KEY[:16]}_r{rank}.{kind}" for rank in (0, 1) for kind in ("f16", "json")]


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    bank = filled(tmp_path, [1])
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DataError, match=r"bank_.*r0\.f16: cannot be written: No space left .*save_dir"):
        bank[np.array([2])] = ROWS[[2]]


NUM, DIM, STEP = 40_000, 256, 1000
"""20 MB of float16."""


def _gather(rank: int, folder: Path) -> None:
    distributed.BLOCK_BYTES = 1 << 20
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    tracemalloc.start()
    pool = VideoVectorPool(NUM, DIM, VectorBank(folder, KEY, rank, (NUM, DIM)))
    for begin in range(rank * STEP, NUM, 2 * STEP):
        places = np.arange(begin, begin + STEP)
        pool.add(places, np.broadcast_to((places % 1999)[:, None], (STEP, DIM)))
    vectors = pool.gather(World.current())
    assert tracemalloc.get_traced_memory()[1] < 4e6  # measured: 2.7 MB
    tracemalloc.stop()
    assert (vectors is None) == (rank == 1)
    if vectors is not None:
        assert np.array_equal(vectors[:, 5], np.arange(NUM) % 1999)
        assert VectorBank(folder, KEY, 0, (NUM, DIM)).known_N.all()
    dist.destroy_process_group()


def test_gathering_between_banks_needs_the_memory_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_ranks(_gather, tmp_path, size=2)
