"""Runs a test's function in several processes, which are forks of a server with all imports."""

import tempfile
from collections.abc import Callable
from typing import Any

import torch.multiprocessing

from mmpt.utils.distributed import World
from tests.support.forked import server


def run_ranks(work: Callable[..., None], *args: Any, size: int) -> None:
    """Calls `work(rank, *args)` in `size` processes at the same time; fails if one of them does."""
    server()  # torch forks from the same server
    torch.multiprocessing.start_processes(
        work, args=args, nprocs=size, start_method="forkserver"
    )


def run_group(work: Callable[..., None], *args: Any, size: int) -> None:
    """Calls `work(world, *args)` in `size` processes of a gloo group; fails if one of them does."""
    with tempfile.TemporaryDirectory() as folder:
        run_ranks(_in_group, size, f"file://{folder}/store", work, args, size=size)


def _in_group(
    rank: int, size: int, address: str, work: Callable[..., None], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=address, rank=rank, world_size=size
    )
    work(World.current(), *args)
    torch.distributed.destroy_process_group()
