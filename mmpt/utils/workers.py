"""Runs tasks in processes that end when their parent does, even if it is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from mmpt.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[tuple[int, Result]]:
    """Yields (number of the task, its result) as tasks finish.

    Args:
        function: does a task. It and the tasks must be picklable.
        workers: the largest number of processes. With 1, tasks run in order in this process.
    Raises:
        UserError: a worker was killed. Errors of `function` pass, after the tasks in progress.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from enumerate(map(function, tasks))
        return
    with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
        futures = {pool.submit(function, task): number for number, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise UserError(
                f"one of {workers} worker processes was killed (often: out of memory). Run the "
                "command again with fewer `--workers`. What is finished is kept."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process with its parent. A worker of a killed pool would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
