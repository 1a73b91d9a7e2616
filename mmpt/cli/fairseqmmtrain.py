"""Runs fairseq-train in this process. The launcher may import this module before it forks."""

import atexit
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmpt.config.fairseq import root_logger_kept
from mmpt.utils.log import FORMAT

with root_logger_kept():
    import fairseq_cli.train
import mmpt.tasks.fairseqmmtask  # otherwise imported because of `--user-dir`
from mmpt.tasks.fairseqmmiterator import keep_inherited_memory_shared

keep_inherited_memory_shared()  # before the launcher forks


def train(command: Sequence[str]) -> None:
    """Runs `fairseq-train` in this process, and exits if it fails.

    Args:
        command: argv of `fairseq-train`.
    """
    sys.argv = list(command)
    # fairseq compares paths to find out that the package is imported already.
    sys.argv[sys.argv.index("--user-dir") + 1] = str(Path(mmpt.__file__).parent)
    logging.basicConfig(  # as fairseq's program does
        format=FORMAT,
        datefmt="%Y-%m-%d %H:%M:%S",
        level=os.environ.get("LOGLEVEL", "INFO").upper(),
        stream=sys.stdout,
        force=True,
    )
    try:
        fairseq_cli.train.cli_main()
    except Exception:
        sys.excepthook(*sys.exc_info())  # the task's, which reports mistakes and exits
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()  # Python does not run them in a forked process
