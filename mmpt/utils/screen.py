"""The log and the screen of a training run.

Everything that is logged goes to `<save_dir>/train.log`. The screen shows warnings, the messages
that are marked with `ON_SCREEN` or `IN_PLACE`, and the metrics. In a terminal, these are a bar and
a table with a row for each validation, otherwise a line for each log interval and each validation.
Only the first process of a run has a screen. Other processes log their warnings and errors.

If the variable LOGLEVEL is set, as for fairseq, the screen shows all messages at or above this
level.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mmpt.utils.io import writing
from mmpt.utils.log import FORMAT, ONLY_IN_LOG, format_seconds
from mmpt.utils.metrics_log import BOOKKEEPING

TRAIN_LOG = "train.log"
"""File of a `save_dir` with everything that a training run logs."""
DATE = "%Y-%m-%d %H:%M:%S"
STATUS_S = 60.0
"""Seconds without a line after which a status is shown, if the screen is not a terminal."""
DRAW_S = 0.1
"""Seconds between two drawings of the bar."""
BAR_WIDTH = 16
WIDTH = 8
"""Minimum width of a value in a line or a table."""
NAME_WIDTH = 24
"""Minimum width of a row's name in a table."""
Stats = Mapping[str, Any]
"""Metrics by name, as fairseq gives them to its progress bars."""


class LogFile(logging.FileHandler):
    """A log file that ignores errors of writing. Other writers report a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Does nothing."""


class Screen(logging.Handler):
    """The screen of the first process of a training run.

    The bar is only drawn when it changes, because a thread that draws could hold a lock while
    loader workers are forked.

    Args:
        is_live: the screen is a terminal in which a bar may be drawn.
        console: where to draw. Default: the standard output.
    """

    def __init__(self, *, is_live: bool, console: Console | None = None):
        super().__init__()
        self.console = console or Console(highlight=False, markup=False, emoji=False)
        self._pid = os.getpid()
        self._live: Live | None = None
        if is_live:
            self._live = Live(
                console=self.console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
        self._drawn_at = 0.0  # the bar
        self._titles: tuple[str, ...] = ()  # of the table that was shown last
        self._status_at = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record, if it is meant for the screen."""
        where = "line" if record.levelno >= logging.WARNING else ""
        where = getattr(record, "screen", where)
        if not where:
            return
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            message = f"{record.levelname.lower()}: {message}"
        if where == "status":
            self.show_status(message)
        else:
            self.show_line(message)

    def show_line(self, text: str) -> None:
        """Shows a line. With a bar, it appears above the bar."""
        if self._live is None or os.getpid() != self._pid:
            self._status_at = time.monotonic()
            now = time.strftime("%H:%M:%S")
            self._write(f"{now}  {text}\n")
        else:
            self._print(Text(text))

    def show_status(self, text: str) -> None:
        """Shows a line that is of interest for a short time only. It replaces the status before it.

        Without a bar, it is an ordinary line, which is left out if another line was shown in the
        last `STATUS_S` seconds.
        """
        if self._live is not None:
            self._draw(Text(text, no_wrap=True, overflow="ellipsis"))
        elif time.monotonic() - self._status_at >= STATUS_S:
            self.show_line(text)

    def show_bar(self, title: str, done: int, total: int, metrics: str) -> None:
        """Draws the bar, unless this was done a moment ago."""
        now = time.monotonic()
        if self._live is None or (now - self._drawn_at < DRAW_S and done < total):
            return
        self._drawn_at = now
        line = Table.grid(padding=(0, 2))
        count = f"{done}/{total}"
        for width in (len(title), BAR_WIDTH, len(count), None):
            line.add_column(min_width=width, no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total, done, width=BAR_WIDTH)
        line.add_row(title, bar, count, metrics)
        self._draw(line)

    def show_row(self, corner: str, name: str, metrics: Mapping[str, str]) -> None:
        """Shows metrics as a row of a table. The last ones are left out if the screen is narrow.

        The titles appear above the first row, and again if they change. All rows have the same
        widths, so the table stays aligned although other lines may appear between its rows.

        Args:
            corner: title of the first column.
            name: name of the row.
            metrics: titles of the other columns, and their values.
        """
        metrics = self._fitting(metrics)
        titles = (corner, *metrics)
        table = Table(box=None, pad_edge=False, show_header=titles != self._titles)
        self._titles = titles
        table.add_column(corner, min_width=NAME_WIDTH)
        for title in metrics:
            width = max(WIDTH, len(title))
            table.add_column(title, justify="right", min_width=width)
        table.add_row(name, *metrics.values())
        self._print(table)

    def _fitting(self, metrics: Mapping[str, str]) -> dict[str, str]:
        """Returns the first metrics, as many as fit next to the name of a row."""
        gap = 2  # spaces between two columns
        fitting, used = {}, NAME_WIDTH
        for title, value in metrics.items():
            used += gap + max(WIDTH, len(title), len(value))
            if used > self.console.width:
                break
            fitting[title] = value
        return fitting

    @property
    def is_live(self) -> bool:
        """True if a bar and tables are drawn, False if there are lines only."""
        return self._live is not None

    def close(self) -> None:
        """Removes the bar."""
        if self._live is not None and self._live.is_started:
            with suppress(OSError):
                self._live.stop()
        super().close()

    def _draw(self, line: RenderableType) -> None:
        assert self._live is not None
        with suppress(OSError):  # a terminal that was closed
            if not self._live.is_started:
                self._live.start()
                # The process may end at any time, and must not leave a hidden cursor.
                self.console.show_cursor(True)
            # The cursor is on an empty line, where others may write.
            self._live.update(Group(line, ""), refresh=True)

    def _print(self, item: RenderableType) -> None:
        with suppress(OSError):
            self.console.print(item)

    def _write(self, text: str) -> None:
        with suppress(OSError, UnicodeError):
            self.console.file.write(text)
            self.console.file.flush()


@dataclass
class BarState:
    """The values that all bars of a training run share."""

    screen: Screen
    stats: Stats = field(default_factory=dict)
    """The means of the last log interval."""
    num_epochs: int = 0
    """Number of epochs of the run. 0: it has no last epoch."""


class ScreenBar:
    """A progress bar of fairseq that also shows its metrics on the screen.

    Args:
        bar: the bar, which writes to the log.
        batches: the batches that the bar yields, as an iterator of fairseq.
        epoch: number of the epoch.
        is_valid: True for a validation, False for an epoch of training.
        state: the screen, and the values that all bars share.
    """

    def __init__(
        self, bar: Any, batches: Any, epoch: int, state: BarState, *, is_valid: bool
    ):
        self._bar = bar
        self._batches = batches
        self._epoch = epoch
        self._state = state
        self._screen = state.screen
        self._is_valid = is_valid

    @property
    def _title(self) -> str:
        num_epochs = self._state.num_epochs
        return (
            f"epoch {self._epoch}/{num_epochs}"
            if num_epochs
            else f"epoch {self._epoch}"
        )

    def __iter__(self) -> Iterator[Any]:
        """Yields the batches."""
        total, first = len(self._batches), getattr(self._batches, "n", 0)
        title = f"{self._title}, validation" if self._is_valid else self._title
        for done, item in enumerate(self._bar, start=first):
            known = {} if self._is_valid else self._state.stats
            # A narrow terminal cuts off the end.
            metrics = f"{speed_line(known)}  {terms_line(known)}"
            self._screen.show_bar(title, done, total, metrics)
            yield item

    def log(
        self, stats: Stats, tag: str | None = None, step: int | None = None
    ) -> None:
        """Shows the means of a log interval."""
        self._bar.log(stats, tag=tag, step=step)
        self._state.stats = stats
        if not self._screen.is_live:
            self._show_line(f"update {step:>6}", stats)

    def print(
        self, stats: Stats, tag: str | None = None, step: int | None = None
    ) -> None:
        """Shows the result of a validation. The means of an epoch are only written to the log."""
        self._bar.print(stats, tag=tag, step=step)
        if not self._is_valid:
            return
        if not self._screen.is_live:
            self._show_line("validation   ", stats)
            return
        # The first validation has the best loss so far. It may precede the first log interval.
        best = stats.get("best_loss", stats.get("loss"))
        training = self._state.stats.get("loss")
        terms = terms_of(stats)
        columns = {"loss": terms.pop("loss", "-")}
        for title, loss in (("best loss", best), ("training loss", training)):
            columns[title] = "-" if loss is None else f"{float(loss):g}"
        columns |= terms
        self._screen.show_row("validation", f"{self._title}, update {step}", columns)

    def _show_line(self, what: str, stats: Stats) -> None:
        line = f"{terms_line(stats, WIDTH)}  {speed_line(stats, WIDTH)}"
        self._screen.show_line(f"{self._title}  {what}  {line}")

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Reads the number of epochs."""
        self._bar.update_config(config)
        self._state.num_epochs = config["optimization"]["max_epoch"]


def terms_of(stats: Stats) -> dict[str, str]:
    """Returns the terms and metrics of the loss as text, by name."""
    shown = {}
    for name, value in stats.items():
        if name not in BOOKKEEPING and value is not None:
            shown[name] = f"{float(value):g}"
    return shown


def terms_line(stats: Stats, width: int = 0) -> str:
    """Returns the terms and metrics of the loss as a line.

    Args:
        width: minimum width of a value, so that successive lines are aligned.
    """
    return "  ".join(
        f"{name} {value:>{width}}" for name, value in terms_of(stats).items()
    )


def speed_line(stats: Stats, width: int = 0) -> str:
    """Returns the speed and the time left as a line, as far as they are known."""
    parts = []
    rate = float(stats.get("clips_per_s", 0))
    if rate > 0:  # it is 0 as long as it is not known
        parts.append(f"{rate:{width}.0f} clips/s")
    if stats.get("minutes_left"):
        time_left = format_seconds(60 * float(stats["minutes_left"]))
        parts.append(f"{time_left:>{width}} left")
    return "  ".join(parts)


def start_log(save_dir: str, rank: int, *, may_draw: bool) -> Screen | None:
    """Configures the root logger of a training process, and returns the screen of the first one.

    Args:
        save_dir: folder of the run. The log is appended to `train.log` in it.
        rank: number of this process among all processes.
        may_draw: draw a bar if the output is a terminal.
    Returns:
        The screen, or None if this process has none or LOGLEVEL is set.
    Raises:
        DataError: the log cannot be written.
    """
    path = Path(save_dir, TRAIN_LOG)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = LogFile(path, encoding="utf-8")
    level = os.environ.get("LOGLEVEL", "").upper()
    line_format = FORMAT
    console: logging.Handler = logging.StreamHandler(sys.stdout)
    if rank > 0:
        line_format = FORMAT.replace("%(message)s", f"rank {rank}: %(message)s")
        file.setLevel(logging.WARNING)
        console.setLevel(logging.ERROR)
    elif level:
        console.setLevel(level)
    else:
        is_terminal = sys.stdout.isatty() and sys.stderr.isatty()
        can_draw = not Console().is_dumb_terminal
        console = Screen(is_live=may_draw and is_terminal and can_draw)
    console.addFilter(_is_for_console)
    for handler in (file, console):
        handler.setFormatter(logging.Formatter(line_format, DATE))
    logging.basicConfig(
        level=logging.DEBUG if level == "DEBUG" else logging.INFO,
        handlers=[file, console],
        force=True,
    )
    return console if isinstance(console, Screen) else None


def _is_for_console(record: logging.LogRecord) -> bool:
    """Returns False for messages with the attributes `ONLY_IN_LOG`."""
    return getattr(record, "screen", None) != ONLY_IN_LOG["screen"]
