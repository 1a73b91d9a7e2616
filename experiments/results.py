"""The results of all runs, in results.jsonl: one run per line, in the order in which they ended."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.results import commit, git, machine
from experiments.arms import Run
from mmpt.utils.io import read_json_lines

RESULTS = Path(__file__).with_name("results.jsonl")
Row = dict[str, Any]


def read_results(path: Path = RESULTS) -> dict[str, Row]:
    """Returns the last row of every run, by its key."""
    if not path.exists():
        return {}
    return {row["run"]: row for row in read_json_lines(path)}


def append_result(row: Row, path: Path = RESULTS) -> None:
    """Appends a row in one write, so that an interruption leaves no half line."""
    line = json.dumps(row) + "\n"
    with path.open("a") as file:
        file.write(line)


def make_row(
    run: Run,
    experiment: str,
    commands: list[str],
    seconds: float,
    measures: dict[str, Any],
) -> Row:
    """Returns the row of a finished run.

    Args:
        experiment: name of the experiment that asked for the run. Others may share it.
        commands: the commands that made the run.
        seconds: wall-clock time of training and scoring.
        measures: see `read_measures`, with the hash of the checkpoint that the run started from, if
            there is one, as `start`.
    """
    return {
        "run": run.key,
        "arm": run.arm_key,
        "experiment": experiment,
        "name": run.arm.name,
        "corpus": run.corpus.name,
        "seed": run.seed,
        "yaml": run.arm.yaml,
        "settings": run.arm.settings,
        "corpus_options": dict(run.corpus.options),
        **measures,
        "commands": commands,
        "commit": commit(),
        "code": code_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "seconds": round(seconds, 1),
    }


def code_version() -> str:
    """Returns the hash of the committed code and YAMLs that runs depend on."""
    hashes = [
        git("rev-parse", "--short", f"HEAD:{name}") for name in ("mmpt", "projects")
    ]
    return "-".join(hashes)
