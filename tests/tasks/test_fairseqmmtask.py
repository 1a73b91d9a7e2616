"""What the bridge to fairseq tells the user: how many updates are left, and that a disk is full."""

from __future__ import annotations

import errno
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmpt.tasks import fairseqmmtask
from mmpt.tasks.fairseqmmtask import updates_left


class Batches(SimpleNamespace):
    """Where an epoch of 7 batches stands."""

    def __len__(self) -> int:
        return 7


def run_out(update_freq: list[int], max_epoch: int, max_update: int = 0) -> list[int | None]:
    """`updates_left` at every update of a run, counted by taking batches as fairseq groups them."""
    args = Namespace(update_freq=update_freq, max_epoch=max_epoch, max_update=max_update)
    found: list[int | None] = []
    for epoch in range(1, max_epoch + 1):
        size, taken = update_freq[min(epoch, len(update_freq)) - 1], 0
        while taken < 7 and len(found) != max_update - 1:
            taken = min(taken + size, 7)
            at: Any = Batches(epoch=epoch, iterations_in_epoch=taken)
            found.append(updates_left(args, at, len(found)))
    return found


@pytest.mark.parametrize("update_freq", [[1], [2], [8], [1, 3]])
def test_updates_left_count_down_to_nothing(update_freq: list[int]) -> None:
    found = run_out(update_freq, max_epoch=3)
    assert found == list(range(len(found)))[::-1]


def test_the_last_update_may_come_before_the_last_epoch() -> None:
    assert run_out([2], max_epoch=3, max_update=6) == [5, 4, 3, 2, 1]
    at: Any = Batches(epoch=1, iterations_in_epoch=2)
    assert updates_left(Namespace(update_freq=[1], max_epoch=0, max_update=50), at, 9) == 40
    assert updates_left(Namespace(update_freq=[1], max_epoch=0, max_update=0), at, 9) is None


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
