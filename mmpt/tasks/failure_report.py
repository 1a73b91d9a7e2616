"""Reports the failure of a training process: a message and an exit code instead of a traceback.

A user's mistake ends the process with one message and exit code 2, wherever in fairseq it is
raised. An exception hook finds it in the chain of exceptions that fairseq wraps around it.
"""

import os
import re
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from types import TracebackType

import torch.distributed as dist

from mmpt.config.run import LAST
from mmpt.errors import EXIT_CODE, UserError, causes_of, first_line, message_of
from mmpt.utils.distributed import World
from mmpt.utils.io import DISK_FULL, NOT_WRITABLE, write_error
from mmpt.utils.killed import worker_failure
from mmpt.utils.stopping import StopRequest

LOST_PEER = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|Socket closed|socket has been closed|TCPStore"
)
SILENT_PEER = re.compile(r"[Tt]imed? ?out")


def report_failure(
    args: Namespace,
    stop: StopRequest | None,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """An exception hook that prints a user's mistake without a traceback and exits with code 2.

    After a request to stop, any other failure is assumed to be a consequence of it, and the process
    ends as requested. Without such a request, other exceptions are printed as usual.

    Args:
        args: fairseq's options.
        stop: the request to stop. None if signals are not handled yet.
    """
    is_cause = partial(_is_from_user, save_dir=args.save_dir)
    cause = next(filter(is_cause, causes_of(error)), None)
    sys.stdout.flush()
    if isinstance(cause, UserError):
        message = message_of(cause)
    elif stop and not isinstance(cause, OSError):
        stop.end("the updates since the last checkpoint are repeated")
    elif failure := worker_failure(error):
        message = str(failure)
    elif isinstance(cause, OSError):
        if World.current().is_main and cause.errno in DISK_FULL:
            _finish_checkpoints(args, cause)
        message = str(
            write_error(cause, cause.filename2 or cause.filename or args.save_dir)
        )
    elif World.current().size > 1 and LOST_PEER.search(str(error)):
        # This process fails only because another one of the group has failed.
        sys.stderr.write("error: another process of this run has ended.\n")
        raise SystemExit(1)
    elif World.current().size > 1 and SILENT_PEER.search(str(error)):
        sys.stderr.write(
            "error: another process of this run does not answer (time limit: "
            f"`fairseq.distributed_training.timeout_minutes`). {first_line(error)}\n"
        )
        os._exit(1)  # leaving the group could wait for the other process
    else:
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(EXIT_CODE)


def _is_from_user(error: BaseException, save_dir: str) -> bool:
    """Returns True for a user's mistake, a full disk and a `save_dir` that cannot be written."""
    if not isinstance(error, OSError):
        return isinstance(error, UserError)
    if error.errno in NOT_WRITABLE and error.filename:
        return Path(error.filename).absolute().is_relative_to(Path(save_dir).absolute())
    return error.errno in DISK_FULL


def _finish_checkpoints(args: Namespace, full_disk: OSError) -> None:
    """Removes incomplete checkpoints after the disk was full.

    fairseq writes a checkpoint once and copies it to its other names. If the disk was full during a
    copy, the original is renamed to the name of the copy, which needs no space. If there is no
    `checkpoint_last.pt` yet, it gets this name instead, so that a rerun continues from it.

    Only the process that writes checkpoints may do this. The launcher keeps other training runs
    out of the folder.
    """
    save_dir = Path(args.save_dir)
    last = save_dir / LAST
    for path in save_dir.glob("checkpoint*.pt.tmp"):
        path.unlink()
    source, copy = full_disk.filename, full_disk.filename2
    if copy is not None:
        copy = str(copy).removesuffix(".tmp")
    if copy is not None and Path(copy).parent == save_dir and Path(source).exists():
        os.replace(source, copy)
        if not last.exists() and not args.no_last_checkpoints:
            os.replace(copy, last)


def leave_process_group() -> None:
    """Closes a gloo group, whose threads could otherwise abort the process as it exits.

    Other groups are left alone: NCCL could wait for the other processes.
    """
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()
