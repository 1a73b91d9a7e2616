"""torch's elastic agent, which does not restart processes that were asked to stop.

torch's agent restarts its processes after every exit code but 0. A process that was asked to stop
ends with 75 (`REQUEUE_CODE`), or with 130 after Ctrl-C, and so do all others of the job, even if
only one of them has received the signal. Then the job ends.

On several machines, the processes of a machine may also end in this way because the launcher of
another machine has ended, or restarts its processes. Then the job must continue. So a launcher
whose processes end in this way waits a few seconds for the others. The job ends only if the
processes of all launchers have ended in this way.
"""

import signal
from contextlib import suppress
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, DistNetworkError
from torch.distributed.elastic.agent.server.api import (
    RunResult,
    WorkerGroup,
    WorkerState,
)
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.utils.store import barrier

from mmpt.errors import REQUEUE_CODE

STOP_CODES = {
    REQUEUE_CODE: signal.SIGTERM,
    128 + signal.SIGINT: signal.SIGINT,
}
"""Exit codes of a process that was asked to stop -> the signal with which the job then ends."""
STOP_KEY = "mmpt/asked_to_stop"
"""Key of the launchers' store. Its value is the number of the signal."""
REASON_S = 1.0
"""Longest time to wait for this key after a failure."""
BARRIER_TIMEOUT_S = 5.0
"""Longest time that launchers wait for each other before the job ends."""


class Agent(LocalElasticAgent):
    """torch's agent. It ends the job when the processes were asked to stop."""

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        """Checks the state of the processes, as torch does.

        Raises:
            SignalException: the processes of all machines were asked to stop.
        """
        result = super()._monitor_workers(worker_group)
        if result.state == WorkerState.FAILED:
            signum = signal_of_job(result, worker_group)
            if signum is not None:
                is_end = wait_for_launchers(worker_group)
                if is_end or self._remaining_restarts == 0:
                    raise SignalException("a process was asked to stop", signum)
        return result


def signal_of_job(
    result: RunResult, worker_group: WorkerGroup, reason_s: float = REASON_S
) -> signal.Signals | None:
    """Returns the signal that a process of the job has received, or None.

    Args:
        result: the failures of the processes of this machine.
        worker_group: the processes of this machine, and the store of all launchers.
        reason_s: longest time to wait for the reason of a failure.
    """
    first = min(result.failures.values(), key=lambda failure: failure.timestamp)
    signum = STOP_CODES.get(first.exitcode)
    if worker_group.group_world_size == 1:
        return signum
    store: Any = worker_group.store
    # During a refresh, a process that receives a signal ends at once, which makes the processes of
    # other machines fail. The launchers of these machines read the reason from the store.
    with suppress(DistError):  # there is no key, or the machine of the store is gone
        if signum is not None:
            store.set(STOP_KEY, str(int(signum)))
        else:
            store.wait([STOP_KEY], timedelta(seconds=reason_s))
            signum = signal.Signals(int(store.get(STOP_KEY)))
    return signum


def wait_for_launchers(
    worker_group: WorkerGroup, timeout_s: float = BARRIER_TIMEOUT_S
) -> bool:
    """Returns whether the launchers of all machines call this within `timeout_s` seconds.

    Also returns True if the store is closed. The first launcher that leaves the barrier may close
    it before the others have left. A job without its store cannot restart in any case.
    """
    size = worker_group.group_world_size or 1
    if size > 1:
        try:
            barrier(worker_group.store, size, f"{STOP_KEY}/barrier", timeout_s)
        except DistNetworkError:
            return True
        except DistError:
            return False
    return True
