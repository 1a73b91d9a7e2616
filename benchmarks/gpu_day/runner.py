"""Runs the parts in processes of their own, and keeps their results in one JSON file.

This module imports only the standard library, so that a broken package ends a part and not the run.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu_day.targets import compare, table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LAST_LINES = 30
"""Lines of the output of a failed part that the report contains."""
LAST_CHARACTERS = 300
"""Characters of the end of an error that are printed. The report has all of it."""
MIN_S = 15
"""A part is not started if fewer seconds are left."""
GRACE_S = 5
"""Seconds that a part has to end after its time limit."""


def end_with_parent() -> None:
    """Makes Linux kill this process when its parent dies, so that it does not keep the GPU busy."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def machine() -> dict[str, str | None]:
    """Returns the GPU with its driver, the number of cores, and the versions of packages."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    gpu = None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        gpu = subprocess.check_output(query, text=True).strip()
    found = {"gpu": gpu, "cores": str(os.cpu_count()), "python": sys.version.split()[0]}
    for name in ("torch", "triton", "transformers", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True)
class Part:
    """One part of the run."""

    name: str
    limit_s: float
    """Longest time that it may take."""
    arguments: Sequence[str] = field(default=("-m", "gpu_day.part"))
    """Arguments of Python in front of the name of the part. Tests replace them."""


PARTS = (
    Part("tests", 220),
    Part("step", 110),
    Part("compiled", 150),
    Part("profile", 50),
    Part("search", 110),
    Part("embed", 80),
    Part("training", 130),
    Part("extract", 70),
    Part("processes", 90),
)
"""All parts, most valuable first. Together they are expected to take about ten minutes."""


class BenchmarkRun:
    """A run of parts, and its report.

    Args:
        out: folder of the report. Results of an earlier run in it are kept.
        work: folder for temporary files. Python packages are imported from its folder `site`.
        rehearse: run small versions on the CPU.
    """

    def __init__(self, out: Path, work: Path, rehearse: bool):
        self.out = out.resolve()
        self.work = work
        self.rehearse = rehearse
        self.path = self.out / "report.json"
        self.out.mkdir(parents=True, exist_ok=True)
        self.report: dict[str, Any] = {"rehearsal": rehearse, "parts": {}}
        if self.path.exists():
            earlier = json.loads(self.path.read_text())
            if earlier["rehearsal"] != rehearse:
                raise SystemExit(
                    f"error: {self.path} was written {'without' if rehearse else 'with'} "
                    "--rehearse; choose another --out."
                )
            self.report = earlier

    @property
    def parts(self) -> dict[str, Any]:
        """Name of a part -> its results: `seconds`, `error` (null if there is none), `values`."""
        parts: dict[str, Any] = self.report["parts"]
        return parts

    def failed(self, parts: Sequence[Part]) -> list[str]:
        """Returns the names of the parts that have not run, or have ended with an error."""
        names = [part.name for part in parts]
        return [
            name
            for name in names
            if name not in self.parts or self.parts[name]["error"] is not None
        ]

    def run(self, parts: Sequence[Part], seconds: float) -> None:
        """Runs the parts that are not done, for at most so many seconds.

        Parts that failed in an earlier run follow those that have not run.
        """
        end = time.monotonic() + seconds
        new = [part for part in parts if part.name not in self.parts]
        failed = self.failed(parts)
        again = [part for part in parts if part not in new and part.name in failed]
        for part in (*new, *again):
            left_s = end - time.monotonic() - GRACE_S
            if left_s < min(MIN_S, part.limit_s):
                print(f"{part.name}: not started, as no time is left", flush=True)
                continue
            self._run_part(part, min(part.limit_s, left_s))

    def _run_part(self, part: Part, limit_s: float) -> None:
        """Runs a part and saves its results."""
        values_path = self.work / "values.json"
        values_path.unlink(missing_ok=True)
        log_path = self.work / f"{part.name}.log"
        command = [
            sys.executable,
            *part.arguments,
            part.name,
            str(values_path),
            str(self.out),
        ]
        if self.rehearse:
            command.append("--rehearse")
        print(f"{part.name}: started, at most {limit_s:.0f} s", flush=True)
        begin = time.monotonic()
        with log_path.open("w") as log:
            code = self._wait(command, log, limit_s)
        taken_s = time.monotonic() - begin
        text = log_path.read_text(errors="replace")
        with (self.out / "log.txt").open("a") as all_logs:
            all_logs.write(f"==== {part.name}\n{text}\n")
        result = {"values": {}, "errors": {}}
        if values_path.exists():
            result = json.loads(values_path.read_text())
        error = None
        if code is None:
            error = f"stopped after {limit_s:.0f} s"
        elif code:
            error = f"ended with exit code {code}"
        elif result["errors"]:
            error = f"failed: {', '.join(result['errors'])}"
        result |= {
            "machine": machine(),
            "seconds": round(taken_s, 1),
            "error": error,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if error:
            result["log"] = text.splitlines()[-LAST_LINES:]
        self.parts[part.name] = result
        self.save()
        print(f"{part.name}: {error or 'done'}, {taken_s:.0f} s", flush=True)

    def _wait(self, command: Sequence[str], log: Any, limit_s: float) -> int | None:
        """Runs a command and returns its exit code, or None if it was stopped."""
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            return None
        finally:
            # The whole group: a part that has ended may have left processes.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def environment(self) -> dict[str, str]:
        """Returns the environment of a part, which finds the project and the packages."""
        site = self.work / "site"
        paths = [str(site), str(ROOT), str(HERE.parent)]
        if inherited := os.environ.get("PYTHONPATH"):
            paths.append(inherited)
        programs = [str(site / "bin"), os.environ.get("PATH", "")]
        changes = {
            "PYTHONPATH": os.pathsep.join(paths),
            "PATH": os.pathsep.join(programs),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(self.work),
        }
        if self.rehearse:
            changes["CUDA_VISIBLE_DEVICES"] = ""
        return os.environ | changes

    def save(self) -> None:
        """Writes the report, with the targets. A rehearsal has none, as its sizes are small."""
        self.report["targets"] = [] if self.rehearse else compare(self.parts)
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(self.report, indent=1) + "\n")
        unfinished.replace(self.path)

    def summary(self) -> str:
        """Returns the report as text: values, errors and targets."""
        lines = []
        for name, part in self.parts.items():
            lines.append(f"== {name}: {part['error'] or 'done'}, {part['seconds']} s")
            for what, value in part["values"].items():
                lines.append(f"   {what}: {value}")
            for what, message in part["errors"].items():
                end = message[-LAST_CHARACTERS:]
                lines.append(f"   ERROR in {what}: {end}")
        if self.rehearse:
            lines.append("== targets: not compared in a rehearsal, which is small")
        else:
            lines += ["== targets", *table(self.report.get("targets", []))]
        lines.append(f"report: {self.path}")
        return "\n".join(lines)
