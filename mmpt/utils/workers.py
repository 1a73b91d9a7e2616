"""Runs tasks in processes that end when their parent does, however it ends: a killed run leaves nobody behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from mmpt.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

_function: Callable[[Any], Any] | None = None  # of a worker process


def run_tasks(
    make_function: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task], workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield (number of the task, its result) as tasks finish; with one worker, in order and in this process.

    Args:
        make_function: called once in every process, so that what it loads is loaded once. Picklable, as are tasks.
        workers: processes at most.
    Raises:
        UserError: a worker was ended from outside; else what a task raises, after the tasks in hand are finished.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        function = make_function() if tasks else None
        for number, task in enumerate(tasks):
            assert function is not None
            yield number, function(task)
        return
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(make_function,)) as pool:
        futures = {pool.submit(_run, task): number for number, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise UserError(
                f"one of {workers} worker processes was ended from outside (often: out of memory). Run the command "
                "again with fewer `--workers`; what is finished is kept."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(make_function: Callable[[], Callable[[Any], Any]]) -> None:
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _function = make_function()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(task: Any) -> Any:
    assert _function is not None
    return _function(task)
