"""Explains why a process was killed or got no shared memory, and what to do.

Loader workers pass their batches on through files in /dev/shm, which is small in a container. When
it is full, or when a worker is killed, torch's message names neither the cause nor a remedy.
"""

import re
import shutil
import signal
import traceback
from contextlib import suppress

from mmpt.errors import UserError, causes_of


def signals_of(*names: str) -> tuple[signal.Signals, ...]:
    """Returns the signals with these names. Those that the system lacks are left out: Windows has
    no SIGHUP, SIGUSR1 and SIGUSR2.
    """
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


STOP_SIGNALS = signals_of("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
"""Signals with which batch systems, or a terminal that is closed, ask a program to end."""
SHARED_MEMORY = "/dev/shm"
FEWER_WORKERS = (
    "Use fewer loader workers (`fairseq.dataset.num_workers=0` needs none; `--workers` of data "
    "commands) or smaller batches (`dataset.num_video_per_batch`; `fairseq.dataset.batch_size` in "
    "evaluations), and run the same command again."
)
# Messages of torch and NCCL. They must not match errors about the shared memory of a GPU.
_NO_SHARED_MEMORY = re.compile(
    r"\(shm\)|unable to write to file </torch_|/dev/shm/.*No space left"
)
_WORKER_ENDED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pid>[\d, ]+)\) "
    r"(?:is killed by signal: (?P<signal>[^.]+)|exited unexpectedly)"
)
_FROM_OUTSIDE = (*STOP_SIGNALS, signal.SIGINT)
_SIGNALS = {signal.strsignal(number): number for number in signal.Signals}
"""Signals by their description, as torch's messages have it."""


def worker_failure(error: BaseException) -> UserError | None:
    """Returns the error to show for a killed loader worker or a full /dev/shm.

    Args:
        error: any error. The errors that it was raised from are searched too.
    Returns:
        None if neither of the two is the cause.
    """
    chain = list(causes_of(error))
    texts = [str(cause) for cause in chain if isinstance(cause, RuntimeError)]

    # 1. A worker has ended, and the signal is known. The earliest of several messages is used (the
    #    last one in the chain), because torch names the signal there if at all.
    worker: str | None = None
    number = 0
    for text in texts:
        if ended := _WORKER_ENDED.search(text):
            worker = f"a loader worker (pid {ended['pid']})"
            number = _SIGNALS.get(ended["signal"]) or _signal_of_worker(
                ended["pid"], chain
            )
    if worker and number:
        return UserError(f"{worker} {describe_signal(number)}")

    # 2. There is no space for a lock. fairseq needs locks even without loader workers.
    if any(map(_is_failed_lock, chain)):
        return UserError(f"{_no_shared_memory()} Then run the same command again.")

    # 3. There is no space for a batch.
    if any(map(_NO_SHARED_MEMORY.search, texts)):
        return UserError(f"{_no_shared_memory()} {FEWER_WORKERS}")

    # 4. A worker has ended for an unknown reason.
    return (
        UserError(f"{worker} ended unexpectedly. {FEWER_WORKERS}") if worker else None
    )


def _signal_of_worker(pid: str, chain: list[BaseException]) -> int:
    """Returns the number of the signal that ended a worker, or 0 if it is unknown."""
    # torch names the signal only if the loader was started in the main thread, and fairseq starts
    # it in another one. But the loader is `self` in one of the frames of the error, and it knows
    # the exit codes of its workers.
    for error in chain:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            for worker in getattr(frame.f_locals.get("self"), "_workers", ()):
                if str(worker.pid) == pid and (worker.exitcode or 0) < 0:
                    return -int(worker.exitcode)
    return 0


def _is_failed_lock(error: BaseException) -> bool:
    """Returns True for an error in creating a lock between processes, a file in /dev/shm."""
    frames = traceback.extract_tb(error.__traceback__)
    is_lock = bool(frames) and frames[-1].filename.endswith(
        "multiprocessing/synchronize.py"
    )
    return is_lock and isinstance(error, OSError)


def describe_signal(number: int) -> str:
    """Describes the end of a process by a signal: "was killed by ...", the likely cause, and what
    to do.
    """
    name = signal.Signals(number).name
    if name == "SIGKILL":
        return (
            f"was killed by {name}, most likely by the kernel because memory was used up. `dmesg | "
            f"grep -i 'out of memory'` shows whether it was. {FEWER_WORKERS}"
        )
    if name == "SIGBUS":
        return (
            f"was killed by {name}: either a file was cut short while it was read, or, more "
            f"likely, {_no_shared_memory()} {FEWER_WORKERS}"
        )
    if number in _FROM_OUTSIDE:
        return f"was terminated by {name}."
    return f"crashed ({name}). Its last lines are above. Run the same command again to continue."


def _no_shared_memory() -> str:
    """Returns the message about a full /dev/shm, with its size and how to enlarge it."""
    size = "does not exist"
    with suppress(OSError):
        usage = shutil.disk_usage(SHARED_MEMORY)
        size = f"holds {usage.total >> 20} MiB, of which {usage.free >> 20} MiB are free now"
    return (
        f"{SHARED_MEMORY}, through which processes pass batches, was full or not writable: it "
        f"{size}. Enlarge it (Docker: `--shm-size=8g` or `--ipc=host`), or remove files that ended "
        "programs have left in it."
    )
