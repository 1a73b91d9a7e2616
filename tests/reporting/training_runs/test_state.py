"""The state of a training run is read from its lock and its checkpoints."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from mmpt.config.run import LOCK_NAME
from mmpt.config.yaml_files import parse_overrides
from mmpt.reporting.training_runs import (
    TrainingRun,
    describe_best,
    describe_state,
    read_training_runs,
)
from mmpt.utils.lock import exclusive
from tests.support.sample_trainings import save, write_run


def read(folder: Path) -> TrainingRun:
    (training,) = read_training_runs([folder])
    return training


def condition(folder: Path) -> str:
    return read(folder).state.condition


def write_ended(folder: Path, **options: Any) -> Path:
    """Writes a training run whose lock is not held."""
    write_run(folder, **options)
    (folder / LOCK_NAME).touch()
    return folder


def test_a_training_run_whose_lock_is_held_is_running(tmp_path: Path) -> None:
    write_ended(tmp_path, num_epochs=2, max_epoch=4)
    assert condition(tmp_path) == "interrupted"
    with exclusive(tmp_path / LOCK_NAME, "training"):
        text = describe_state(read(tmp_path))
    assert text == "running: epoch 2 of 4, 20 updates, about 7 minutes left"
    assert describe_state(read(tmp_path)) == "interrupted: epoch 2 of 4, 20 updates"


def test_a_training_run_without_a_lock_is_finished_or_not(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, num_epochs=2)
    assert condition(tmp_path) == "not finished"
    shutil.rmtree(tmp_path)
    write_run(tmp_path, num_epochs=3)
    assert condition(tmp_path) == "finished"


EARLY = {"should_stop_early": {"num_runs": 2}}


@pytest.mark.parametrize(
    ("options", "saved", "expected"),
    [
        (["optimization.max_epoch=3"], {}, "finished"),
        (["optimization.max_epoch=4"], {}, "interrupted"),
        (["optimization.max_epoch=3"], {"is_due": True}, "interrupted"),
        ([], {}, "interrupted"),
        (["optimization.max_update=30"], {}, "finished"),
        (["optimization.max_update=31"], {}, "interrupted"),
        (["optimization.max_epoch=3", "optimization.max_update=99"], {}, "finished"),
        (["checkpoint.patience=2"], EARLY, "finished"),
        (["checkpoint.patience=3"], EARLY, "interrupted"),
        (
            ["optimization.stop_time_hours=1"],
            {"training_time_s": 3700.0, "is_due": True},
            "finished",
        ),
    ],
)
def test_a_training_run_is_finished_at_the_limits_of_its_settings(
    tmp_path: Path, options: list[str], saved: dict[str, Any], expected: str
) -> None:
    overrides = [f"fairseq.{option}" for option in options]
    settings, _ = parse_overrides([*overrides, "fairseq.common.seed=1"])
    write_ended(tmp_path, **settings)
    save(tmp_path / "checkpoint_last.pt", 30, 4, **saved)
    assert condition(tmp_path) == expected


def test_the_progress_is_read_from_the_checkpoint_or_the_log(tmp_path: Path) -> None:
    write_ended(tmp_path, num_epochs=3)
    # The log has lines after the checkpoint, which will be repeated.
    save(tmp_path / "checkpoint_last.pt", 20, 3)
    assert describe_state(read(tmp_path)) == "interrupted: epoch 3 of 3, 30 updates"
    # The checkpoint is newer than the last line.
    save(tmp_path / "checkpoint_last.pt", 33, 4, in_epoch=3)
    assert describe_state(read(tmp_path)).endswith("epoch 4 of 3, 33 updates")


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_a_training_run_without_intact_checkpoints_is_read(
    tmp_path: Path, content: bytes | None
) -> None:
    write_ended(tmp_path, num_epochs=3)
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        (tmp_path / name).unlink()
        if content is not None:
            (tmp_path / name).write_bytes(content)
    # The last validation in the log shows this.
    assert condition(tmp_path) == "finished"
    assert describe_best(read(tmp_path)) == ""


def test_the_best_checkpoint_is_described(tmp_path: Path) -> None:
    write_run(tmp_path)
    text = describe_best(read(tmp_path))
    assert text == "checkpoint_best.pt: validation loss 5 after update 20"
