"""Runs tasks in processes that end with their parent."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from mmpt.errors import UserError
from mmpt.utils.command import end_with_parent
from mmpt.utils.killed import worker_failure

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Yields the result of every task, in the order of the tasks.

    The processes are those of torch's DataLoader.

    Args:
        function: does a task.
        workers: the largest number of processes. With 1, tasks run in this process.
    Raises:
        UserError: a worker was killed. Errors of `function` pass.
    """
    workers = min(workers, len(tasks))
    loader: DataLoader[Any] = DataLoader(
        tasks,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers if workers > 1 else 0,
        # Workers call this on one task at a time.
        collate_fn=function,  # type: ignore[arg-type]
        worker_init_fn=_start_worker,
    )
    try:
        yield from loader
    except RuntimeError as err:
        failure = worker_failure(err)
        if failure is None:
            raise
        raise UserError(f"{failure} What is finished is kept.") from None


def _start_worker(_: int) -> None:
    end_with_parent(signal.SIGKILL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
