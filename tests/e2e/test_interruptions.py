"""Training runs that are interrupted at random moments give the results of uninterrupted runs.

`make chaos` does the same for many moments.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROWS = ["kill", "kill-saved", "term", "interrupt", "rank-hung"]
ROWS += ["worker-killed", "disk-full", "damaged", "moved"]
"""One trial of each row is run. `make chaos` runs the others, too. `test_launching.py` tests lost
ranks, and ranks asked to stop."""
SAVES = {"term", "interrupt"}
"""Interruptions that give a run the time to save its state."""
BY_SIGNAL = {-signal.SIGINT, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGUSR2}
"""Exit codes of a process that ended by the default action of a signal."""


@pytest.fixture(scope="module")
def outcomes(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("chaos")
    command = [sys.executable, "-m", "tests.support.chaos", corpus, folder / "runs"]
    command += [f"{row}=1" for row in ROWS]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert done.returncode in (0, 1), done.stderr[-3000:]
    (path,) = folder.glob("runs/*/outcomes.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_interrupted_runs_give_the_results_of_uninterrupted_ones(
    outcomes: list[dict[str, Any]],
) -> None:
    """Weights, optimizer, plans and metrics are equal to the bit."""
    assert [one["row"] for one in outcomes] == ROWS
    different = [one for one in outcomes if one["different"]]
    assert not different, json.dumps(different, indent=1)


def test_a_run_that_is_asked_to_stop_loses_no_update(
    outcomes: list[dict[str, Any]],
) -> None:
    asked = [one for one in outcomes if one["row"] in SAVES]
    assert {one["row"] for one in asked} == SAVES
    begun = []
    for one in asked:
        assert one["lost_updates"] == 0, one
        # A signal ends a process that has not set its signal handlers yet.
        if not set(one["codes"]) & BY_SIGNAL:
            begun.append(one)
            assert set(one["codes"]) == {130 if one["row"] == "interrupt" else 75}, one
    assert len(begun) >= len(asked) / 2


def test_a_run_that_is_saved_after_each_update_loses_at_most_one_update(
    outcomes: list[dict[str, Any]],
) -> None:
    (one,) = (one for one in outcomes if one["row"] == "kill-saved")
    assert one["lost_updates"] <= 1, one


def test_the_other_processes_end_when_one_hangs(
    outcomes: list[dict[str, Any]],
) -> None:
    (one,) = (one for one in outcomes if one["row"] == "rank-hung")
    assert -9 in one["codes"], one
    assert set(one["codes"]) <= {-9, 1, 75}, one


def test_a_full_disk_gives_exit_code_2_without_a_traceback(
    outcomes: list[dict[str, Any]],
) -> None:
    (one,) = (one for one in outcomes if one["row"] == "disk-full")
    assert one["codes"] == [2], one
    assert not one["traceback"], one
