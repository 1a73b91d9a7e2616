"""Reads what a training run leaves in its `save_dir`: settings, metrics and retrieval hardness."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from mmpt.config.yaml_files import Values, read_yaml
from mmpt.errors import DataError
from mmpt.reporting.training_runs.state import Progress, State, read_state
from mmpt.retrieval import HARDNESS_LOG
from mmpt.utils.io import reading
from mmpt.utils.log import get_logger
from mmpt.utils.metrics_log import METRICS_LOG
from mmpt.utils.validation import validate

logger = get_logger(__name__)

CONFIG = "config.yaml"
R = TypeVar("R", bound=BaseModel)


class MetricsLine(BaseModel):
    """A line of `metrics.jsonl`. Its metrics are additional fields."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, float | None]
    split: Literal["train", "valid"]
    epoch: int
    update: int
    """Number of completed updates."""
    time: float
    """Unix time in seconds."""

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The metrics that are finite, by name."""
        extra = self.__pydantic_extra__
        return {name: value for name, value in extra.items() if value is not None}


class HardnessLine(BaseModel):
    """A line of the log of retrieval hardness. Numbers that are not finite are absent."""

    model_config = ConfigDict(frozen=True)
    epoch: int
    mean_cosine: float | None = None
    random_mean_cosine: float | None = None
    coverage: float | None = None
    refresh_s: float | None = None
    """Seconds of the refresh. Logs of older versions do not have them."""


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A training run, finished or in progress."""

    name: str
    """Name in tables. The names of the training runs on a page are different."""
    folder: Path
    """The `save_dir`."""
    settings: Values
    """The content of `config.yaml`; empty without this file."""
    lines: Sequence[MetricsLine]
    """At least one."""
    hardness: Sequence[HardnessLine]
    """The last line of each epoch, in the order of the epochs."""
    state: State

    def lines_of(self, split: str) -> list[MetricsLine]:
        """Returns the lines of `train` or `valid`."""
        return [line for line in self.lines if line.split == split]

    def curve(self, split: str, metric: str) -> dict[int, float]:
        """Returns the finite values of a metric, {update: value}."""
        curve = {}
        for line in self.lines_of(split):
            if metric in line.metrics:
                curve[line.update] = line.metrics[metric]
        return curve

    def seconds_by_epoch(self) -> dict[int, float]:
        """Returns the time that each epoch took, without interruptions.

        It is computed from the number of clips and the rate in each line. The time between two
        lines includes the refresh and the validation. Lines without a rate are left out.
        """
        seconds: dict[int, float] = {}
        previous = 0
        for line in self.lines_of("train"):
            num_updates = line.update - previous
            previous = line.update
            rate = line.metrics.get("clips_per_s", 0)
            if rate > 0 and "bsz" in line.metrics:
                taken_s = line.metrics["bsz"] * num_updates / rate
                seconds[line.epoch] = seconds.get(line.epoch, 0) + taken_s
        return seconds


def is_training_run(folder: str | Path) -> bool:
    """Returns whether a folder has the metrics of a training run."""
    return (Path(folder) / METRICS_LOG).is_file()


class NoMetricsError(DataError):
    """A training run has no metrics yet."""


def read_training_runs(folders: Iterable[str | Path]) -> list[TrainingRun]:
    """Reads training runs. A folder that is named twice is read once.

    Training runs without metrics are left out with a warning, unless none has any.

    Args:
        folders: the `save_dir` of each.
    Raises:
        NoMetricsError: no training run has metrics yet.
        DataError: a folder is not the folder of a training run, or is damaged.
        ConfigError: a `config.yaml` is damaged.
    """
    distinct: dict[Path, Path] = {}  # resolved path -> path as the user wrote it
    for folder in map(Path, folders):
        distinct.setdefault(folder.resolve(), folder)
    names = [folder.name for folder in distinct]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in distinct.values()]
    runs, without_metrics = [], []
    for name, folder in zip(names, distinct.values(), strict=True):
        try:
            runs.append(_read_training_run(name, folder))
        except NoMetricsError as err:
            without_metrics.append(err)
    if without_metrics and not runs:
        raise without_metrics[0]
    for problem in without_metrics:
        logger.warning("left out: %s", problem)
    return runs


def _read_training_run(name: str, folder: Path) -> TrainingRun:
    log, config = folder / METRICS_LOG, folder / CONFIG
    if not log.exists() and not config.exists():
        raise DataError(
            f"{folder}: not the folder of a training run, since it has neither {METRICS_LOG} nor "
            f"{CONFIG}. Name the `fairseq.checkpoint.save_dir` of a training run."
        )
    # The metrics come first: the state must not be older than they are.
    lines = _read_lines(log, MetricsLine) if log.exists() else []
    if not lines:
        raise NoMetricsError(
            f"{log}: holds no metrics. The training run has not reached its first log interval "
            "(`fairseq.common.log_interval` updates). Wait, or continue the training run."
        )
    settings = read_yaml(config) if config.exists() else {}
    last = lines[-1]
    logged = Progress(
        num_updates=last.update,
        epoch=last.epoch,
        # A validation is at the end of an epoch.
        num_epochs=last.epoch if last.split == "valid" else last.epoch - 1,
    )
    return TrainingRun(
        name=name,
        folder=folder,
        settings=settings,
        lines=lines,
        hardness=_read_hardness(folder / "retri" / HARDNESS_LOG),
        state=read_state(folder, settings, logged),
    )


def _read_hardness(log: Path) -> list[HardnessLine]:
    lines = _read_lines(log, HardnessLine) if log.exists() else []
    by_epoch = {line.epoch: line for line in lines}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _read_lines(log: Path, kind: type[R]) -> list[R]:
    """Returns the lines of a JSON Lines log.

    Text after the last line end is left out: it is being written, or was cut short when the
    training was killed.

    Raises:
        DataError: a line is damaged.
    """
    with reading(log, "Name the folder of a training run."):
        content = log.read_bytes()
    *lines, _unfinished = content.split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        where = f"{log}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            text = line.decode(errors="replace")
            raise DataError(
                f"{where}: must be a JSON object, but is {text!r:.60}. The file is damaged: "
                "restore it, or remove this line."
            ) from None
        rows.append(
            validate(kind, value, where, "Restore the file, or remove the line.")
        )
    return rows
