"""Runs one training in this process and prints the files of MMPT that its first step enters.

    python -m tests.support.traced_training fairseq-train YAML ...

The last line is JSON: {"step": [...], "refresh": [...]}. A file is entered if one of its functions
is called. `step` covers the loading of the first batch and `train_step`; `refresh` covers the plan
of the epoch.
"""

import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from mmpt.cli.fairseqmmtrain import train
from mmpt.tasks.fairseqmmiterator import WaitingIterator
from mmpt.tasks.fairseqmmtask import FairseqMMTask
from mmpt.tasks.retritask import RetriTask

ROOT = Path(__file__).resolve().parents[2]


def traced(function: Callable[..., Any], files: set[str]) -> Callable[..., Any]:
    """Returns `function`, whose first call adds the files that it enters to `files`."""

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        # Bodies of modules and classes run when they are imported, and are no functions.
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED:
            files.add(code.co_filename)

    def run(*args: Any, **kwargs: Any) -> Any:
        if run.done:  # type: ignore[attr-defined]
            return function(*args, **kwargs)
        run.done = True  # type: ignore[attr-defined]
        outer = sys.getprofile()
        sys.setprofile(note)
        try:
            return function(*args, **kwargs)
        finally:
            sys.setprofile(outer)

    run.done = False  # type: ignore[attr-defined]
    return run


def relative(files: set[str]) -> list[str]:
    """Returns the files of MMPT, relative to the root of the project."""
    paths = [Path(file) for file in files]
    ours = [
        path.relative_to(ROOT) for path in paths if path.is_relative_to(ROOT / "mmpt")
    ]
    return sorted(path.as_posix() for path in ours)


def main(command: list[str]) -> None:
    """Trains, and prints the files."""
    step: set[str] = set()
    refresh: set[str] = set()
    # fairseq asks for a batch by __next__ and then calls train_step.
    WaitingIterator.__next__ = traced(WaitingIterator.__next__, step)  # type: ignore[method-assign]
    FairseqMMTask.train_step = traced(FairseqMMTask.train_step, step)  # type: ignore[method-assign]
    RetriTask.plan_epoch = traced(RetriTask.plan_epoch, refresh)  # type: ignore[method-assign]
    try:
        train(command)
    finally:
        print(
            json.dumps({"step": relative(step), "refresh": relative(refresh)}),
            flush=True,
        )


if __name__ == "__main__":
    os.chdir(ROOT)
    main(sys.argv[1:])
