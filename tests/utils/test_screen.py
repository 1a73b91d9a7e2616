"""The screen of a training run, in a pipe and in a terminal of 100 columns."""

import logging
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mmpt.errors import DataError
from mmpt.utils import screen
from mmpt.utils.log import IN_PLACE, ON_SCREEN, ONLY_IN_LOG, get_logger
from mmpt.utils.screen import BarState, Screen, ScreenBar, speed_line, start_log

LOGGER = get_logger("mmpt.test")
TRAIN = {
    "loss": 12.605,
    "clip_caption": 12.6052,
    "clips_per_s": 466.1,
    "minutes_left": 0.4,
    "num_updates": 10,
    "wall": 7.0,
}
VALID = {"loss": 8.4, "clip_caption": 8.4054, "clips_per_s": 1800.0, "best_loss": 8.4}
UP_AND_CLEAR = "\x1b[1A"


class Bar:
    """A progress bar of fairseq, which records what it logs."""

    def __init__(self, batches: list[int]):
        self.batches = batches
        self.logged: list[tuple[Any, Any]] = []

    def __iter__(self) -> Iterator[int]:
        return iter(self.batches)

    def log(self, stats: Any, tag: Any, step: Any) -> None:
        self.logged.append((tag, step))

    print = log

    def update_config(self, config: Any) -> None:
        """Does nothing."""


def show_an_epoch(state: BarState) -> list[tuple[Any, Any]]:
    """Trains for an epoch of three batches, and validates. Returns the calls of fairseq's log."""
    bar, valid = Bar([1, 2, 3]), Bar([1])
    train_bar = ScreenBar(bar, bar.batches, 1, state, is_valid=False)
    train_bar.update_config({"optimization": {"max_epoch": 8}})
    assert list(train_bar) == [1, 2, 3]
    train_bar.log(TRAIN, tag="train_inner", step=10)
    valid_bar = ScreenBar(valid, valid.batches, 1, state, is_valid=True)
    assert list(valid_bar) == [1]
    valid_bar.print(VALID, tag="valid", step=10)
    train_bar.print(TRAIN, tag="train", step=10)
    return bar.logged + valid.logged


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """The output of a screen. The time is fixed."""
    clock = SimpleNamespace(strftime=lambda _: "12:00:00", monotonic=lambda: clock.now)
    clock.now = 1000.0
    monkeypatch.setattr(screen, "time", clock)
    return StringIO()


def plain(text: StringIO) -> Screen:
    return Screen(is_live=False, console=Console(file=text, width=40))


def live(text: StringIO, width: int = 100) -> Screen:
    console = Console(file=text, width=width, force_terminal=True, color_system=None)
    return Screen(is_live=True, console=console)


def test_a_pipe_gets_an_aligned_line_per_interval_and_validation(
    text: StringIO,
) -> None:
    logged = show_an_epoch(BarState(plain(text)))
    assert text.getvalue().splitlines() == [
        "12:00:00  epoch 1/8  update     10  loss   12.605  clip_caption  12.6052"
        "       466 clips/s      0:24 left",
        "12:00:00  epoch 1/8  validation     loss      8.4  clip_caption   8.4054"
        "      1800 clips/s",
    ]
    assert logged == [("train_inner", 10), ("train", 10), ("valid", 10)]


def test_an_unknown_rate_is_not_shown() -> None:
    assert speed_line({"clips_per_s": 0, "minutes_left": 2}) == "2:00 left"


def test_a_terminal_gets_a_bar_and_a_row_per_validation(text: StringIO) -> None:
    state = BarState(live(text))
    show_an_epoch(state)
    bar = Bar([1])
    assert list(ScreenBar(bar, bar.batches, 2, state, is_valid=False)) == [1]
    state.screen.close()
    out = text.getvalue()
    # Without colours, the rest of the bar is blank.
    assert re.search("epoch 1/8 {20}0/3", out)
    assert "0/1" not in out  # too early after the bar of the training epoch
    titles = (
        "validation                    loss  best loss  training loss  clip_caption"
    )
    values = (
        "epoch 1/8, update 10           8.4        8.4         12.605        8.4054"
    )
    assert f"{titles}\n{values}\n" in out


def test_the_titles_of_a_table_are_repeated_if_they_change(text: StringIO) -> None:
    screen = live(text)
    for name, titles in (("a", "xy"), ("b", "xy"), ("c", "z")):
        screen.show_row("run", name, dict.fromkeys(titles, "1"))
    rows = [line.split() for line in text.getvalue().splitlines()]
    first, second = ["run", "x", "y"], ["run", "z"]
    assert rows == [first, ["a", "1", "1"], ["b", "1", "1"], second, ["c", "1"]]
    assert len({len(line) for line in text.getvalue().splitlines()[:3]}) == 1


def test_the_last_columns_are_left_out_if_the_terminal_is_narrow(
    text: StringIO,
) -> None:
    names = ["loss", "best loss", "training loss", "clip_caption", "video_paragraph"]
    for width, num_shown in ((100, 5), (80, 4), (60, 3)):
        live(text, width).show_row(
            "validation", "epoch 1/8, update 10", dict.fromkeys(names, "12.605")
        )
        titles, values = text.getvalue().splitlines()[-2:]
        assert titles.split()[-1] == names[num_shown - 1].split()[-1]
        assert values.split()[4:] == ["12.605"] * num_shown


def test_the_first_row_does_not_need_earlier_metrics(text: StringIO) -> None:
    state = BarState(live(text))
    valid = Bar([1])
    bar = ScreenBar(valid, valid.batches, 1, state, is_valid=True)
    bar.print({"loss": "8.4"}, step=10)
    assert text.getvalue().split()[-3:] == ["8.4", "8.4", "-"]


def test_the_bar_shows_the_metrics_of_the_last_interval(text: StringIO) -> None:
    state = BarState(live(text), TRAIN)
    bar = Bar([1])
    batches = type("Batches", (), {"n": 4, "__len__": lambda _: 9})()
    list(ScreenBar(bar, batches, 2, state, is_valid=False))
    wanted = "4/9  466 clips/s  0:24 left  loss 12.605  clip_caption 12.6052"
    assert wanted in text.getvalue()
    # The next output is on an empty line, and the cursor is visible.
    assert not text.getvalue().rpartition("\n")[2].strip()
    assert text.getvalue().rindex("\x1b[?25h") > text.getvalue().rindex("\x1b[?25l")


@pytest.mark.parametrize("make", [plain, live])
def test_only_warnings_and_marked_messages_are_shown(make: Any, text: StringIO) -> None:
    handler = make(text)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("hidden")
    logger.warning("hidden, too", extra=ONLY_IN_LOG)
    logger.info("epoch %d: refreshed", 3, extra=ON_SCREEN)
    logger.warning("few videos")
    out = text.getvalue()
    assert "hidden" not in out
    assert "epoch 3: refreshed\n" in out
    assert "warning: few videos\n" in out


def test_a_status_is_replaced_in_a_terminal_and_rarely_printed_in_a_pipe(
    text: StringIO,
) -> None:
    logger = logging.Logger("test")
    logger.addHandler(plain(text))
    for number in range(30):
        screen.time.now += 5  # type: ignore[attr-defined]
        logger.info("%d videos", number, extra=IN_PLACE)
    assert text.getvalue() == "12:00:00  11 videos\n12:00:00  23 videos\n"

    drawn = StringIO()
    handler = live(drawn)
    for number in range(3):
        handler.show_status(f"{number} videos")
    assert drawn.getvalue().count(UP_AND_CLEAR) == 2


def test_training_continues_if_the_terminal_is_closed() -> None:
    class Closed(StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    for make in (plain, live):
        state = BarState(make(Closed()))
        assert len(show_an_epoch(state)) == 3, "the log gets everything"
        state.screen.show_line("a message")
        state.screen.close()


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, which is restored after the test."""
    logger = logging.getLogger()
    kept = logger.handlers[:], logger.level
    yield logger
    for handler in set(logger.handlers) - set(kept[0]):
        handler.close()
    logger.handlers[:], logger.level = kept


def test_the_log_of_a_run_continues_and_has_warnings_of_all_ranks(
    tmp_path: Path,
    root: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOGLEVEL", raising=False)
    for rank in (0, 1, 0):
        screen = start_log(str(tmp_path / "run"), rank, may_draw=True)
        assert (screen is not None) == (rank == 0)
        LOGGER.info("info of %d", rank)
        LOGGER.warning("warning of %d", rank)
        LOGGER.error("error of %d", rank)
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    of_0 = ["info of 0", "warning of 0", "error of 0"]
    of_1 = ["rank 1: warning of 1", "rank 1: error of 1"]
    assert [line.rpartition(" | ")[2] for line in lines] == [*of_0, *of_1, *of_0]
    printed = capsys.readouterr().out
    assert "info of" not in printed
    assert "  warning: warning of 0\n" in printed
    assert "warning of 1" not in printed
    assert "rank 1: error of 1" in printed


def test_loglevel_shows_the_whole_log(
    tmp_path: Path,
    root: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOGLEVEL", "info")
    assert start_log(str(tmp_path), 0, may_draw=True) is None
    LOGGER.info("a detail")
    assert capsys.readouterr().out == (tmp_path / "train.log").read_text()


@pytest.mark.parametrize(("level", "rank"), [("info", 0), ("", 1)])
def test_a_message_for_the_log_only_is_never_shown(
    tmp_path: Path,
    root: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    rank: int,
) -> None:
    monkeypatch.setenv("LOGLEVEL", level)
    start_log(str(tmp_path), rank, may_draw=True)
    LOGGER.error("a traceback", extra=ONLY_IN_LOG)
    assert "a traceback" in (tmp_path / "train.log").read_text()
    assert capsys.readouterr().out == ""


def test_a_file_instead_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(DataError, match="run"):
        start_log(str(tmp_path / "run"), 0, may_draw=False)
