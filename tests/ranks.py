"""Several processes of one group for a test, forked from a server that has imported the project
once.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing


def run_ranks(work: Callable[..., None], *args: Any, size: int) -> None:
    """Call `work(rank, *args)` in `size` processes at once; fail if one does."""
    multiprocessing.set_forkserver_preload(["mmpt.tasks"])
    torch.multiprocessing.start_processes(work, args=args, nprocs=size, start_method="forkserver")
