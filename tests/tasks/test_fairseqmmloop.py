"""When a run saves, validates and ends. `tests/e2e/test_interruptions.py` tests whole runs."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmpt.config.run import LAST
from mmpt.models.checkpoint_folder import PREVIOUS
from mmpt.tasks.fairseqmmloop import (
    AtomicPathManager,
    Position,
    RunState,
    is_out_of_time,
    without_time_limit,
)
from mmpt.utils.stopping import StopRequest


def run_state(
    *, minutes: float | None = None, is_in_any: Callable[[bool], bool] = bool
) -> RunState:
    return RunState(StopRequest(), is_in_any, minutes)


def settings(stop_time_hours: float) -> SimpleNamespace:
    return SimpleNamespace(
        optimization=SimpleNamespace(stop_time_hours=stop_time_hours)
    )


def test_a_stop_request_of_any_process_stops_all_processes() -> None:
    run = run_state()
    assert not run.update_stop_request([{}, {"stop_requested": 0}])
    assert not run.agrees_to_stop(is_end=False)
    assert run.update_stop_request([{"stop_requested": 0}, {"stop_requested": 1}])
    assert run.update_stop_request([{}])
    assert run.agrees_to_stop(is_end=False)


def test_processes_communicate_only_at_the_end_of_an_epoch() -> None:
    asked = []

    def is_in_any(value: bool) -> bool:
        asked.append(value)
        return True  # another process was asked to stop

    run = run_state(is_in_any=is_in_any)
    assert not run.agrees_to_stop(is_end=False)
    assert asked == []
    assert run.agrees_to_stop(is_end=True)
    assert asked == [False]


@pytest.mark.parametrize(("minutes", "must"), [(None, False), (1e-9, True), (9, False)])
def test_a_checkpoint_is_due_after_some_minutes(
    minutes: float | None, must: bool
) -> None:
    assert run_state(minutes=minutes).must_save() is must


def test_only_one_checkpoint_stores_that_validation_is_due() -> None:
    run, continued = run_state(), run_state()
    with run.saving(is_due=True):
        state = run.state_dict()
    assert run.state_dict() == {"is_due": False}
    continued.load_state_dict(state)
    assert continued.take_due()
    assert not continued.take_due()


@pytest.mark.parametrize(
    ("state", "epoch", "is_end"),
    [
        ({"epoch": 2, "iterations_in_epoch": 3}, 2, False),
        ({"epoch": 3, "iterations_in_epoch": 0}, 2, True),
    ],
)
def test_fairseq_stores_the_end_of_an_epoch_as_the_start_of_the_next(
    state: dict[str, int], epoch: int, is_end: bool
) -> None:
    position = Position.of(state)
    assert (position.epoch, position.end_of_epoch()) == (epoch, is_end)
    assert position.state_dict() == state


@pytest.mark.parametrize(("hours", "is_out"), [(0, False), (1, True), (3, False)])
def test_the_time_limit_includes_the_time_before_restarts(
    hours: float, is_out: bool
) -> None:
    trainer = SimpleNamespace(cumulative_training_time=lambda: 2 * 3600)
    config = settings(hours)
    assert is_out_of_time(config, trainer) is is_out
    assert without_time_limit(config).optimization.stop_time_hours == 0
    assert config.optimization.stop_time_hours == hours


@pytest.mark.parametrize("move", [AtomicPathManager.copy, AtomicPathManager.rename])
def test_a_replaced_last_checkpoint_is_kept(
    tmp_path: Path, move: Callable[[str, str], object]
) -> None:
    for name, text in {LAST: "first", "new": "second"}.items():
        (tmp_path / name).write_text(text)
    move(str(tmp_path / "new"), str(tmp_path / LAST))
    assert (tmp_path / LAST).read_text() == "second"
    assert (tmp_path / PREVIOUS).read_text() == "first"
