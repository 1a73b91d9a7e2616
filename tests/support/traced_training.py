"""Trains, and records the files of MMPT that are entered by the start, a step and the refresh.

    python -m tests.support.traced_training FOLDER YAML ...

FOLDER is followed by the arguments of `mmpt train`. Each process writes FOLDER/<its id>.json:
{"start": [...], "step": [...], "refresh": [...]}. A file is entered if one of its functions is
called. `start` covers everything from the command to the first batch, except the plan of the epoch,
in the launcher and in the process that it forks; `step` covers the loading of the first batch and
`train_step`; `refresh` covers the plan of the epoch.
"""

import atexit
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from mmpt.cli.main import main as mmpt
from mmpt.datasets.fairseqmmdataset import WaitingIterator
from mmpt.tasks.fairseqmmtask import FairseqMMTask
from mmpt.tasks.retritask import RetriTask
from tests.support.paths import ROOT


def note_in(files: set[str]) -> Callable[[FrameType, str, object], None]:
    """Returns a function for `sys.setprofile` that adds the file of each called function."""

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        # Bodies of modules and classes run when they are imported, and are no functions.
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED:
            files.add(code.co_filename)

    return note


def traced(
    function: Callable[..., Any], files: set[str], *, ends_start: bool = False
) -> Callable[..., Any]:
    """Returns `function`, whose first call adds the files that it enters to `files`.

    Args:
        ends_start: the trace of the start ends with this call.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        if run.done:  # type: ignore[attr-defined]
            return function(*args, **kwargs)
        run.done = True  # type: ignore[attr-defined]
        outer = sys.getprofile()
        sys.setprofile(note_in(files))
        try:
            return function(*args, **kwargs)
        finally:
            sys.setprofile(None if ends_start else outer)

    run.done = False  # type: ignore[attr-defined]
    return run


def relative(files: set[str]) -> list[str]:
    """Returns the files of MMPT, relative to the root of the project."""
    paths = [Path(file) for file in files]
    ours = [
        path.relative_to(ROOT) for path in paths if path.is_relative_to(ROOT / "mmpt")
    ]
    return sorted(path.as_posix() for path in ours)


def main(folder: Path, arguments: list[str]) -> int:
    """Trains, and writes the files. Returns the exit code of the launcher."""
    start: set[str] = set()
    step: set[str] = set()
    refresh: set[str] = set()
    # fairseq gets a batch by __next__ and then calls train_step.
    first_batch = traced(WaitingIterator.__next__, step, ends_start=True)
    WaitingIterator.__next__ = first_batch  # type: ignore[method-assign]
    FairseqMMTask.train_step = traced(FairseqMMTask.train_step, step)  # type: ignore[method-assign]
    RetriTask.plan_epoch = traced(RetriTask.plan_epoch, refresh)  # type: ignore[method-assign]

    def write() -> None:
        files = {"start": start, "step": step, "refresh": refresh}
        found = {name: relative(paths) for name, paths in files.items()}
        (folder / f"{os.getpid()}.json").write_text(json.dumps(found))

    atexit.register(write)  # a forked process inherits this
    sys.setprofile(note_in(start))
    try:
        return mmpt(["train", *arguments])
    finally:
        sys.setprofile(None)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
