"""Reports of a training process that fails: a full disk, a folder that cannot be written."""

import errno
from argparse import Namespace
from pathlib import Path

import pytest

from mmpt.tasks.failure_report import report_failure


@pytest.mark.parametrize(
    ("files", "failed", "kept"),
    [
        # A partly written file is removed.
        (
            {
                "checkpoint1.pt": "1",
                "checkpoint_last.pt": "1",
                "checkpoint2.pt.tmp": "half",
            },
            [],
            {"checkpoint1.pt": "1", "checkpoint_last.pt": "1"},
        ),
        # A partly written copy is replaced by its source.
        (
            {
                "checkpoint1.pt": "1",
                "checkpoint2.pt": "2",
                "checkpoint_last.pt": "half",
            },
            ["checkpoint2.pt", "checkpoint_last.pt"],
            {"checkpoint1.pt": "1", "checkpoint_last.pt": "2"},
        ),
        # The first checkpoint is used as the last one, unless the run does not keep a last one.
        (
            {"checkpoint1.pt": "1", "checkpoint_best.pt": "half"},
            ["checkpoint1.pt", "checkpoint_best.pt"],
            {"checkpoint_last.pt": "1"},
        ),
        (
            {"checkpoint1.pt": "1", "checkpoint_best.pt": "half", "no_last": ""},
            ["checkpoint1.pt", "checkpoint_best.pt"],
            {"checkpoint_best.pt": "1", "no_last": ""},
        ),
        # Other files are kept.
        (
            {"mine.pt.tmp": "mine", "retri/.plan.tmp": "half", "retri/plan": "old"},
            ["retri/.plan.tmp", "retri/plan"],
            {"mine.pt.tmp": "mine", "retri/.plan.tmp": "half", "retri/plan": "old"},
        ),
    ],
)
def test_a_full_disk_is_reported_and_leaves_no_truncated_checkpoint(
    files: dict[str, str],
    failed: list[str],
    kept: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """fairseq could not write a file, whose name is unknown, or could not copy a file."""
    (tmp_path / "retri").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    args = Namespace(save_dir=str(tmp_path), no_last_checkpoints="no_last" in files)
    paths = [str(tmp_path / name) for name in failed]
    error = RuntimeError("[enforce fail at inline_container.cc]")
    cause = OSError(
        errno.ENOSPC, "No space left on device", *paths[:1], None, *paths[1:]
    )
    error.__context__ = cause
    with pytest.raises(SystemExit) as ended:
        report_failure(args, None, RuntimeError, error, None)
    assert ended.value.code == 2
    place = [str(tmp_path), *paths][-1]
    said = f"error: {place}: cannot be written: the disk is full (No space left on device). Make"
    assert capsys.readouterr().err.startswith(said)
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path)): path.read_text() for path in found} == kept


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_an_unwritable_folder_is_reported_without_a_traceback(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files in it are left as they are, because they cannot be removed either."""
    part = tmp_path / "checkpoint2.pt.tmp"
    part.write_text("half")
    args = Namespace(save_dir=str(tmp_path), no_last_checkpoints=False)
    error = OSError(number, "Not allowed", str(part), None, str(part.with_suffix("")))
    with pytest.raises(SystemExit) as ended:
        report_failure(args, None, OSError, error, None)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(
        f"error: {part.with_suffix('')}: cannot be written (Not allowed). Make its"
    )
    assert part.exists()


def test_a_file_in_another_folder_is_not_reported_as_unwritable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = Namespace(save_dir=str(tmp_path / "run"), no_last_checkpoints=False)
    error = PermissionError(errno.EACCES, "Not allowed", str(tmp_path / "data"))
    report_failure(args, None, PermissionError, error, None)
    assert capsys.readouterr().err == f"PermissionError: {error}\n"
