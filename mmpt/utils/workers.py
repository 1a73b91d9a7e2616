"""Runs tasks in worker processes, which end when their parent ends."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from mmpt.errors import UserError
from mmpt.utils.command import end_with_parent
from mmpt.utils.killed import worker_failure

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Yields the results of all tasks, in the order of the tasks.

    The workers belong to a torch DataLoader.

    Args:
        function: computes the result of a task.
        tasks: the tasks.
        workers: largest number of worker processes. With 1, tasks run in this process.
    Raises:
        UserError: a worker was killed. Errors of `function` are raised unchanged.
    """
    from torch.utils.data import DataLoader  # deferred: takes seconds

    workers = min(workers, len(tasks))
    loader: DataLoader[Any] = DataLoader(
        tasks,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers if workers > 1 else 0,
        # Without batches, workers call this with a single task.
        collate_fn=function,  # type: ignore[arg-type]
        worker_init_fn=_start_worker,
    )
    try:
        yield from loader
    except RuntimeError as err:
        failure = worker_failure(err)
        if failure is None:
            raise
        raise UserError(f"{failure} Finished tasks are kept.") from None


def _start_worker(_: int) -> None:
    end_with_parent("SIGKILL")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # processes already run in parallel
