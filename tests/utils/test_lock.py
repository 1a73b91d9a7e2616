"""Locks have one holder at a time. Other processes wait for it or are refused."""

import errno
import fcntl
import threading
from pathlib import Path

import pytest

from mmpt.errors import DataError
from mmpt.utils.lock import exclusive, is_held


def is_free(path: Path) -> bool:
    try:
        with exclusive(path, "a test", "it is held"):
            return True
    except DataError:
        return False


def test_a_lock_has_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    with exclusive(path, "a test"):
        assert not is_free(path)
    assert is_free(path)


def test_other_processes_log_that_they_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    order = []

    def wait() -> None:
        with exclusive(tmp_path / ".lock", "packing"):
            order.append("second")

    waiting = threading.Thread(target=wait)
    with exclusive(tmp_path / ".lock", "packing"):
        waiting.start()
        while "is locked by another process (packing); waiting" not in caplog.text:
            assert waiting.is_alive()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_a_file_system_without_locks_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with exclusive(tmp_path / ".lock", "a test"):
        assert is_free(tmp_path / ".lock")
    assert "this file system has no locks" in caplog.text


def test_a_lock_is_inspected_without_acquiring_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"
    assert is_held(path) is None
    assert not path.exists()
    with exclusive(path, "a test"):
        path.chmod(0o444)
        assert is_held(path) is True
        assert is_held(path) is True
    assert is_held(path) is False
    assert is_free(path)
    with path.open("rb") as other:  # another process looks at the same time
        fcntl.flock(other, fcntl.LOCK_SH)
        assert is_held(path) is False

    def no_locks(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert is_held(path) is None
