"""What the bridge to fairseq tells the user: how much time is left, and that a disk is full."""

from __future__ import annotations

import errno
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmpt.tasks import fairseqmmtask
from mmpt.tasks.fairseqmmtask import FairseqMMTask


class Batches(SimpleNamespace):
    """Where an epoch of 10 batches stands."""

    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize(
    ("max_epoch", "max_update", "left"),
    [(3, 0, [0, 4, 2, 0]), (0, 30, [0, 4, 2, 0]), (6, 30, [0, 4, 2, 0]), (0, 0, [0, 0, 0, 0])],
)
def test_minutes_left_at_the_pace_so_far(
    max_epoch: int, max_update: int, left: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run continues after 5 of 30 updates and needs a minute for 5 of them."""
    args = Namespace(max_epoch=max_epoch, max_update=max_update)
    task: Any = SimpleNamespace(start=None, args=args)
    found = []
    for update in (5, 10, 20, 30):
        monkeypatch.setattr("time.monotonic", lambda now=12.0 * update: now)
        task.num_updates = update - 1
        epoch = -(-update // 10)
        batches: Any = Batches(epoch=epoch, iterations_in_epoch=update - 10 * (epoch - 1))
        found.append(FairseqMMTask._minutes_left(task, batches))
    assert found == pytest.approx(left)


def full_disk(
    save_dir: Path, *files: str, capsys: pytest.CaptureFixture[str], keeps_last: bool = True
) -> str:
    """What is said after fairseq could not write the first, or copy it to the second; `save_dir`
    holds both.
    """
    args = Namespace(save_dir=str(save_dir), no_last_checkpoints=not keeps_last)
    cause = OSError(errno.ENOSPC, "No space left on device", *files[:1], None, *files[1:])
    error = RuntimeError("[enforce fail at inline_container.cc]")
    error.__context__ = cause
    with pytest.raises(SystemExit) as ended:
        fairseqmmtask._report_user_error(args, RuntimeError, error, None)
    assert ended.value.code == 2
    return capsys.readouterr().err


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_full_disk_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"checkpoint1.pt": "1", "checkpoint_last.pt": "1", "mine.pt.tmp": "mine"}
    for name, text in (kept | {"checkpoint2.pt.tmp": "half"}).items():
        (tmp_path / name).write_text(text)
    said = full_disk(tmp_path, capsys=capsys)
    assert said.startswith(
        f"error: {tmp_path}: cannot be written: the disk is full (No space left on device). Make"
    )
    assert "choose another folder" in said
    assert contents(tmp_path) == kept


def test_a_checkpoint_that_could_not_be_copied_takes_the_place_of_its_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in {
        "checkpoint1.pt": "1",
        "checkpoint2.pt": "2",
        "checkpoint_last.pt": "half",
    }.items():
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in ("checkpoint2.pt", "checkpoint_last.pt")]
    assert f"error: {files[1]}: cannot be written: the disk is full" in full_disk(
        tmp_path, *files, capsys=capsys
    )
    assert contents(tmp_path) == {"checkpoint1.pt": "1", "checkpoint_last.pt": "2"}


@pytest.mark.parametrize(
    ("keeps_last", "name"), [(True, "checkpoint_last.pt"), (False, "checkpoint_best.pt")]
)
def test_the_first_checkpoint_is_one_to_go_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keeps_last: bool, name: str
) -> None:
    files = [tmp_path / "checkpoint1.pt", tmp_path / "checkpoint_best.pt"]
    for path, text in zip(files, ("1", "half"), strict=True):
        path.write_text(text)
    full_disk(tmp_path, *map(str, files), capsys=capsys, keeps_last=keeps_last)
    assert contents(tmp_path) == {name: "1"}


def test_a_full_disk_elsewhere_moves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = tmp_path / "retri"
    plans.mkdir()
    for name in (".plan_e2.json.abc.tmp", "plan_e2.json"):
        (plans / name).write_text(name)
    before = contents(plans)
    full_disk(tmp_path, *(str(plans / name) for name in before), capsys=capsys)
    assert contents(plans) == before
