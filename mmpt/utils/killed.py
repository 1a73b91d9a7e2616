"""Says why the system killed a process or gave it no shared memory, and what to do.

Loader workers pass their batches on through files in /dev/shm, which is small in a container. torch
reports a full /dev/shm and a killed worker in words that name neither the cause nor a remedy.
"""

import os
import re
import signal
import traceback
from contextlib import suppress

from mmpt.errors import UserError

SHARED_MEMORY = "/dev/shm"
LESS = (
    "Use fewer loader workers (`fairseq.dataset.num_workers=0` needs none; `--workers` of data "
    "commands) or smaller batches (`dataset.num_video_per_batch`; `fairseq.dataset.batch_size` in "
    "evaluations), and run the same command again."
)
# Of torch, also of earlier versions, and of NCCL. A GPU has shared memory, too.
_NO_SHARED_MEMORY = re.compile(
    r"\(shm\)|unable to write to file </torch_|(?:/dev/shm/|</torch_\d).*No space left"
)
_WORKER_ENDED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pid>[\d, ]+)\) "
    r"(?:is killed by signal: (?P<signal>[^.]+)|exited unexpectedly)"
)


def worker_failure(error: BaseException) -> UserError | None:
    """Returns the error to show if `error`, or one that it was raised from, is due to a killed
    loader worker or to a full /dev/shm; else None.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    texts = [str(one) for one in chain if isinstance(one, RuntimeError)]
    ended = [match for match in map(_WORKER_ENDED.search, texts) if match]
    for match in ended:
        if number := _signal_in_words(match["signal"]) or _signal_of_worker(match["pid"], chain):
            return UserError(f"a loader worker (pid {match['pid']}) {end_by_signal(number)}")
    if any(map(_is_failed_lock, chain)):  # which fairseq needs even without loader workers
        return UserError(f"{_no_shared_memory()} Then run the same command again.")
    if any(map(_NO_SHARED_MEMORY.search, texts)):
        return UserError(f"{_no_shared_memory()} {LESS}")
    if ended:
        return UserError(f"a loader worker (pid {ended[0]['pid']}) ended unexpectedly. {LESS}")
    return None


def _signal_in_words(words: str | None) -> int:
    """Returns the signal that the system describes so, or 0."""
    return next((one for one in signal.valid_signals() if signal.strsignal(one) == words), 0)


def _signal_of_worker(pid: str, chain: list[BaseException]) -> int:
    """Returns the signal that ended a worker, or 0.

    torch names it only where a loader was started in the main thread, which fairseq does not do.
    But the loader is in the frames of its error, and knows the exit codes of its workers.
    """
    for error in chain:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            for worker in getattr(frame.f_locals.get("self"), "_workers", ()):
                if str(worker.pid) == pid and (worker.exitcode or 0) < 0:
                    return -int(worker.exitcode)
    return 0


def _is_failed_lock(error: BaseException) -> bool:
    """Returns True for the error of a lock between processes, which is a file in /dev/shm."""
    frames = traceback.extract_tb(error.__traceback__)
    is_lock = bool(frames) and frames[-1].filename.endswith("multiprocessing/synchronize.py")
    return is_lock and isinstance(error, OSError)


def end_by_signal(number: int) -> str:
    """Returns "was killed by ...", the likely cause and what to do, for a process that a signal
    ended.
    """
    name = next((one.name for one in signal.Signals if one == number), f"signal {number}")
    if number == signal.SIGKILL:
        return (
            f"was killed by {name}, most likely by the kernel because memory was used up. `dmesg | "
            f"grep -i 'out of memory'` shows whether it was. {LESS}"
        )
    if number == signal.SIGBUS:
        return (
            f"was killed by {name}: either a file was cut short while it was read, or, more "
            f"likely, {_no_shared_memory()} {LESS}"
        )
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return f"was ended from outside by {name}."
    return f"crashed ({name}). Its last lines are above. Run the same command again to continue."


def _no_shared_memory() -> str:
    size = "does not exist"
    with suppress(OSError):
        state = os.statvfs(SHARED_MEMORY)
        total, free = (blocks * state.f_frsize for blocks in (state.f_blocks, state.f_bavail))
        size = f"holds {_readable(total)}, of which {_readable(free)} are free now"
        if state.f_flag & os.ST_RDONLY:
            return (
                f"{SHARED_MEMORY}, through which processes pass batches, is read-only. Remount it."
            )
    return (
        f"{SHARED_MEMORY}, through which processes pass batches, was full: it {size}. Enlarge "
        "it (Docker: `--shm-size=8g` or `--ipc=host`), or remove what ended programs left in it."
    )


def _readable(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"
