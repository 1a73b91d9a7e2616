"""Says why the system killed a process or gave it no shared memory, and what to do.

Loader workers pass their batches on through files in /dev/shm, which is small in a container. torch
reports a full /dev/shm and a killed worker in words that name neither the cause nor a remedy.
"""

import re
import shutil
import signal
import traceback
from contextlib import suppress

from mmpt.errors import UserError, causes_of

SHARED_MEMORY = "/dev/shm"
LESS = (
    "Use fewer loader workers (`fairseq.dataset.num_workers=0` needs none; `--workers` of data "
    "commands) or smaller batches (`dataset.num_video_per_batch`; `fairseq.dataset.batch_size` in "
    "evaluations), and run the same command again."
)
_NO_SHARED_MEMORY = re.compile(  # of torch and NCCL; a GPU has shared memory, too
    r"\(shm\)|unable to write to file </torch_|/dev/shm/.*No space left"
)
_WORKER_ENDED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pid>[\d, ]+)\) "
    r"(?:is killed by signal: (?P<signal>[^.]+)|exited unexpectedly)"
)
_SIGNALS = {signal.strsignal(one): one for one in signal.Signals}


def worker_failure(error: BaseException) -> UserError | None:
    """Returns the error to show if `error`, or one that it was raised from, is due to a killed
    loader worker or to a full /dev/shm; else None.
    """
    chain = list(causes_of(error))
    texts = [str(one) for one in chain if isinstance(one, RuntimeError)]
    ended = None
    for text in texts:  # torch names the signal, if at all, in the error that it raises first
        ended = _WORKER_ENDED.search(text) or ended
    if ended:
        worker = f"a loader worker (pid {ended['pid']})"
        if number := _SIGNALS.get(ended["signal"]) or _signal_of_worker(ended["pid"], chain):
            return UserError(f"{worker} {end_by_signal(number)}")
    if any(map(_is_failed_lock, chain)):  # which fairseq needs even without loader workers
        return UserError(f"{_no_shared_memory()} Then run the same command again.")
    if any(map(_NO_SHARED_MEMORY.search, texts)):
        return UserError(f"{_no_shared_memory()} {LESS}")
    return UserError(f"{worker} ended unexpectedly. {LESS}") if ended else None


def _signal_of_worker(pid: str, chain: list[BaseException]) -> int:
    """Returns the signal that ended a worker, or 0.

    torch names it only if a loader was started in the main thread, which fairseq does not do. But
    the frames of the error contain the loader, which knows the exit codes of its workers.
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
    name = signal.Signals(number).name
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
        usage = shutil.disk_usage(SHARED_MEMORY)
        size = f"holds {usage.total >> 20} MiB, of which {usage.free >> 20} MiB are free now"
    return (
        f"{SHARED_MEMORY}, through which processes pass batches, was full or not writable: it "
        f"{size}. Enlarge it (Docker: `--shm-size=8g` or `--ipc=host`), or remove what ended "
        "programs left in it."
    )
