"""A lock that is taken only when it is free, and given back."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from mmpt.utils.lock import exclusive, held_if_free


def test_a_lock_is_taken_when_free_and_refused_while_somebody_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    with held_if_free(path) as first, held_if_free(path) as second:
        assert (first, second) == (True, False)
    with exclusive(path, "a test"), held_if_free(path) as third:
        assert not third
    with held_if_free(path) as fourth:
        assert fourth


def test_a_file_system_without_locks_refuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with held_if_free(tmp_path / ".lock") as first, held_if_free(tmp_path / ".lock") as second:
        assert first
        assert second
