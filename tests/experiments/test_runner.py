"""Steps run after the steps that they need. Finished steps are skipped, and interrupts stop all."""

import json
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import runner
from experiments.arms import START, Arm, Run
from experiments.corpora import HALF_ALIGNED
from experiments.results import append_result, read_results
from experiments.runner import Commands, Queue, Step, do_step, make_steps, run_steps
from mmpt.errors import LaunchError


class FakeCommands(Commands):
    """Records the commands in the order of their ends. The command `fail` fails."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []
        self.most_at_once = 0
        self._now = 0
        self._count = threading.Lock()

    def __call__(self, command: list[str], log: Path) -> None:
        with self._count:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(0.02)
        with self._count:
            self._now -= 1
            self.ran.append(command[0])
        if command[0] == "fail":
            raise LaunchError("exit code 1")


def step(folder: Path, key: str, *needs: str, command: str = "") -> Step:
    words = [command or key]
    return Step(
        key, key, folder / key, lambda: [words], needs=list(needs), estimate_s=1.0
    )


def test_a_step_begins_after_the_steps_that_it_needs(tmp_path: Path) -> None:
    steps = [
        step(tmp_path, "c", "b"),
        step(tmp_path, "a"),
        step(tmp_path, "b", "a"),
        step(tmp_path, "d"),
    ]
    commands = FakeCommands()
    lines: list[str] = []
    assert run_steps(steps, 2, commands, lines.append) == []
    assert sorted(commands.ran) == ["a", "b", "c", "d"]
    assert commands.ran.index("a") < commands.ran.index("b") < commands.ran.index("c")
    assert commands.most_at_once == 2
    assert lines[-1].startswith("4 of 4: ")


def test_finished_steps_are_not_repeated(tmp_path: Path) -> None:
    steps = [step(tmp_path, "a"), step(tmp_path, "b", "a")]
    first, second = FakeCommands(), FakeCommands()
    run_steps(steps, 1, first, print)
    lines: list[str] = []
    run_steps(steps, 1, second, lines.append)
    assert (first.ran, second.ran) == (["a", "b"], [])
    assert all("was finished" in line for line in lines)


def test_a_step_whose_output_is_lost_is_repeated(tmp_path: Path) -> None:
    one = step(tmp_path, "a")
    one.outputs = [tmp_path / "a" / "checkpoint.pt"]
    do_step(one, FakeCommands())
    assert not one.is_done
    one.outputs[0].touch()
    assert one.is_done


def test_steps_that_need_a_failed_one_are_left_out(tmp_path: Path) -> None:
    steps = [
        step(tmp_path, "a", command="fail"),
        step(tmp_path, "b", "a"),
        step(tmp_path, "c"),
    ]
    commands = FakeCommands()
    failures = run_steps(steps, 1, commands, print)
    assert failures == ["a: exit code 1", "b: not run"]
    assert sorted(commands.ran) == ["c", "fail"]
    assert not steps[0].is_done


def test_an_interrupt_stops_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        time.sleep(0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "wait", interrupt)
    sleeper = step(tmp_path, "a")
    sleeper.commands = lambda: [["-c", "import time; time.sleep(60)"]]
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_steps([sleeper], 1, Commands(), print)
    assert time.monotonic() - begin < 20
    assert not sleeper.is_done


def test_a_failed_command_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    command = ["-c", "import os; print(os.environ['OMP_NUM_THREADS']); 1 / 0"]
    with pytest.raises(LaunchError, match="ZeroDivisionError"):
        Commands(num_threads=7)(command, tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text().splitlines()[0] == "7"
    assert sys.executable  # the command ran with this interpreter


def test_runs_with_a_result_are_left_out(tmp_path: Path) -> None:
    arm = Arm("one", "One", {"nprobe": 1})
    runs = [("first", Run.of(arm, HALF_ALIGNED, seed)) for seed in (0, 1)]
    results = tmp_path / "results.jsonl"

    def labels() -> list[str]:
        steps = make_steps(runs, lambda run: 10.0, tmp_path, results)
        return [step.label for step in steps]

    one_seed = [
        "corpus half-aligned, seed 0",
        "videoclip on half-aligned, seed 0",
        "one on half-aligned, seed 0",
    ]
    other_seed = [label.replace("seed 0", "seed 1") for label in one_seed]
    assert labels() == one_seed + other_seed
    append_result({"run": runs[0][1].key}, results)
    assert labels() == other_seed
    append_result({"run": runs[1][1].key}, results)
    assert labels() == []


def test_equal_runs_of_two_experiments_are_made_once(tmp_path: Path) -> None:
    runs = [
        ("first", Run.of(START, HALF_ALIGNED, 0)),
        ("second", Run.of(START, HALF_ALIGNED, 0)),
    ]
    steps = make_steps(runs, lambda run: 10.0, tmp_path, tmp_path / "results.jsonl")
    assert len(steps) == 2  # the corpus and the run
    assert steps[1].needs == [steps[0].key]


def test_the_result_of_a_finished_run_is_recorded_again_if_it_is_lost(
    tmp_path: Path,
) -> None:
    run = Run.of(Arm("one", "One"), HALF_ALIGNED, 0)
    results = tmp_path / "results.jsonl"
    *_, last = make_steps([("name", run)], lambda run: 10.0, tmp_path, results)
    last.folder.mkdir(parents=True)
    (last.folder / "measures.json").write_text(
        '{"metrics": {"A": {"R1": 0.5}}, "curves": {}}'
    )
    done = {"key": run.key, "commands": ["python -m mmpt train"], "seconds": 60.0}
    (last.folder / "done.json").write_text(json.dumps(done))
    for _ in range(2):  # the second time, the result exists
        assert do_step(last, FakeCommands()) == 0.0
    assert len(results.read_text().splitlines()) == 1
    row = read_results(results)[run.key]
    assert row["metrics"] == {"A": {"R1": 0.5}}
    assert (row["seconds"], row["seed"], row["corpus"]) == (60.0, 0, "half-aligned")


def test_the_queue_keeps_the_order_of_steps_that_are_ready(tmp_path: Path) -> None:
    queue = Queue([step(tmp_path, "a", "z"), step(tmp_path, "b"), step(tmp_path, "c")])
    taken = [queue.take(), queue.take(), queue.take()]
    assert [each and each.key for each in taken] == ["b", "c", None]
