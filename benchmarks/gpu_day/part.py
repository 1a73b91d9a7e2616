"""Runs one part in this process: `python -m gpu_day.part NAME VALUES OUT [--rehearse]`."""

import argparse
import importlib
import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FUNCTIONS = {
    "tests": "gpu_day.gpu_tests:run_tests",
    "step": "gpu_day.training_step:measure_steps",
    "compiled": "gpu_day.training_step:measure_compiled_steps",
    "profile": "gpu_day.profiling:profile_step",
    "search": "gpu_day.refresh:measure_search",
    "embed": "gpu_day.refresh:measure_embedding",
    "training": "gpu_day.jobs:train_kill_and_continue",
    "extract": "gpu_day.extraction:measure_encoders",
    "processes": "gpu_day.jobs:train_in_two_processes",
}
"""Name of a part -> its module and function. The function takes a `Report`."""
MESSAGE_LINES = 12
"""Lines of a traceback that are reported."""


class Report:
    """The values of a part. Each is saved immediately, so that a part that is stopped keeps them.

    Args:
        path: the file of the values.
        out: folder of the whole run.
        rehearse: run small versions on the CPU.
    """

    def __init__(self, path: Path, out: Path, rehearse: bool):
        self.path = path
        self.out = out
        self.rehearse = rehearse
        self.values: dict[str, Any] = {}
        self.errors: dict[str, str] = {}
        self._save()

    def add(self, name: str, value: Any) -> None:
        """Records a value: a number, text, or a list or mapping of those. Floats are rounded."""
        self.values[name] = rounded(value)
        self._save()

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Records an exception in the block as the error `name`, and continues after the block."""
        try:
            yield
        except Exception:
            lines = traceback.format_exc().splitlines()
            self.errors[name] = "\n".join(lines[-MESSAGE_LINES:])
            self._save()
            traceback.print_exc()

    def _save(self) -> None:
        unfinished = self.path.with_suffix(".part")
        found = {"values": self.values, "errors": self.errors}
        unfinished.write_text(json.dumps(found))
        unfinished.replace(self.path)


def rounded(value: Any) -> Any:
    """Returns a value whose floats have five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return value


def main() -> None:
    """Runs the part that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=FUNCTIONS)
    parser.add_argument("values", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    report = Report(args.values, args.out, args.rehearse)
    module, function = FUNCTIONS[args.name].split(":")
    getattr(importlib.import_module(module), function)(report)


if __name__ == "__main__":
    main()
