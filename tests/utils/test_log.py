"""Progress lines, with a clock that the tests control."""

import logging
import os
from collections.abc import Iterator

import pytest

from mmpt.cli.main import main
from mmpt.utils import log

LOGGER = log.get_logger("mmpt.test")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list whose sum is the time."""
    moves: list[float] = [100.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: sum(moves))
    return moves


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_progress_logs_count_rate_and_time_left(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    seen = []
    for item in log.progress("abcdefgh", 8, "letters read", LOGGER):
        seen.append(item)
        clock.append(2.0)
    assert seen == list("abcdefgh")
    assert lines(caplog) == [
        "letters read: 3 of 8 (38%), 0.5/s, 0:10 left",
        "letters read: 6 of 8 (75%), 0.5/s, 0:04 left",
        "letters read: 8 in 0:16 (0.5/s)",
    ]


def test_progress_counts_the_units_of_an_item(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in log.progress(range(3), 25, "videos embedded", LOGGER, unit=10):
        clock.append(10.0)
    assert lines(caplog) == [
        "videos embedded: 10 of 25 (40%), 1.0/s, 0:15 left",
        "videos embedded: 20 of 25 (80%), 1.0/s, 0:05 left",
        "videos embedded: 25 in 0:30 (0.8/s)",
    ]


def test_progress_is_lazy_and_logs_one_line_for_no_items(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def endless() -> Iterator[int]:
        yield 1
        raise AssertionError("asked for more than was used")

    assert next(log.progress(endless(), 5, "x", LOGGER)) == 1
    assert list(log.progress([], 0, "files read", LOGGER)) == []
    assert lines(caplog) == ["files read: 0 in 0:00 (0.0/s)"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (75, "1:15"), (3700, "1:01:40")]
)
def test_durations_are_formatted(seconds: float, text: str) -> None:
    assert log.format_seconds(seconds) == text


@pytest.mark.parametrize(("value", "left"), [("", None), ("info", "INFO")])
def test_loglevel_is_changed_to_a_value_that_torch_accepts(
    value: str, left: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch would raise a ValueError for an empty level and for lower case."""
    monkeypatch.setenv("LOGLEVEL", value)
    log.setup_logging()
    assert os.environ.get("LOGLEVEL") == left


def test_an_unknown_loglevel_gives_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGLEVEL", "loud")
    assert main(["train", "nowhere.yaml"]) == 2
    assert "LOGLEVEL must be one of CRITICAL," in capsys.readouterr().err
