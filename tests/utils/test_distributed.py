"""Communication between processes, compared with a single array of all rows. Timeouts."""

import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

import mmpt.utils.distributed as distributed
from mmpt.utils.distributed import World
from tests.support.ranks import run_ranks

SIZE = 3
POSITIONS = np.random.default_rng(0).permutation(50)
# One process has no positions.
POSITIONS_OF_RANK = POSITIONS[:17], POSITIONS[17:17], POSITIONS[17:]
ROWS = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)


def test_a_single_process_needs_no_communication() -> None:
    world = World.current()
    assert (world, world.is_main) == (World(rank=0, size=1), True)
    value = object()
    assert world.broadcast_object(value) is value
    assert np.array_equal(world.gather_rows(ROWS[POSITIONS], POSITIONS), ROWS)


def in_process(rank: int, folder: Path) -> None:
    """Runs all checks below in one process of the group."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=SIZE
    )
    exchange(World.current())
    regroup(World.current(), folder)
    wait_long(World.current())
    dist.destroy_process_group()
    (folder / f"finished_{rank}").touch()


def exchange(world: World) -> None:
    assert (world.size, world.is_main) == (SIZE, world.rank == 0)
    assert world.broadcast_object({"from": world.rank}) == {"from": 0}
    positions = POSITIONS_OF_RANK[world.rank]
    for dtype in (np.float32, np.float16):
        rows = ROWS[positions].astype(dtype)
        matrix = world.gather_rows(rows, positions, block_bytes=7 * ROWS[0].nbytes)
        if world.is_main:
            assert np.array_equal(matrix, ROWS.astype(dtype))
        else:
            assert matrix is None
    assert len(distributed._gloo_groups) == 1, "one group is used for all communication"


def wait_long(world: World) -> None:
    """Waits longer than the timeout of the default group."""
    for late in range(SIZE):
        if world.rank == late:
            time.sleep(1.5)
        assert world.broadcast_object(late) == late


def regroup(world: World, folder: Path) -> None:
    dist.destroy_process_group()
    assert len(distributed._gloo_groups) == 0, (
        "the gloo group ends together with the default group"
    )
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/second",
        rank=world.rank,
        world_size=SIZE,
        timeout=timedelta(seconds=1),
    )
    assert World.current().broadcast_object(world.rank) == 0


@pytest.mark.spawn
def test_communication_between_processes(tmp_path: Path) -> None:
    run_ranks(in_process, tmp_path, size=SIZE)
    finished = {path.name for path in tmp_path.glob("finished_*")}
    assert finished == {"finished_0", "finished_1", "finished_2"}
