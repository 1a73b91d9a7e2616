"""Tables about trainings: their figures, and the settings in which they differ."""

import json
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from mmpt.config.origins import leaves
from mmpt.reporting.trainings.charts import metric_names
from mmpt.reporting.trainings.run import Training
from mmpt.reporting.trainings.state import best_metric

Figures = dict[str, Any]
OWN = {
    ("fairseq", "checkpoint", "save_dir"),
    ("fairseq", "common", "tensorboard_logdir"),
    ("eval", "save_path"),
}
"""Settings that name folders for the results of a training. They are not compared."""
TITLES = {
    "best_valid_update": "best validation after update",
    "clips_per_s": "clips per second",
    "data_wait_percent": "waiting for data, %",
    "memory_gb": "memory, GB",
    "cosine_in_batch": "cosine in a batch",
    "coverage_percent": "coverage, %",
    "refresh_s": "refresh, seconds",
}
"""Titles in tables for the figures whose names alone would not be clear."""


def figures_of(training: Training) -> Figures:
    """Returns the figures of a training by name. Figures that are unknown are absent.

    `final_*` are the values in the last line of the log, which are means since the line before.
    `minutes*` do not include interruptions, and `minutes_per_epoch` is the mean over the complete
    epochs. `pretraining.md` describes the other figures.
    """
    progress = training.state.progress
    figures: Figures = {
        "state": training.state.condition,
        "epoch": progress.epoch,
        "updates": progress.num_updates,
    }
    trained = training.lines_of("train")
    for name in dict.fromkeys(["loss", *metric_names([training])]):
        if trained and name in trained[-1].metrics:
            figures[f"final_{name}"] = trained[-1].metrics[name]
    return figures | _best_validation(training) | _speed(training) | _batches(training)


def _best_validation(training: Training) -> Figures:
    name, is_maximum = best_metric(training.settings)
    curve = training.curve("valid", name)
    if not curve:
        return {}
    choose = max if is_maximum else min
    update = choose(curve, key=lambda update: curve[update])
    return {f"best_valid_{name}": curve[update], "best_valid_update": update}


def _speed(training: Training) -> Figures:
    figures: Figures = {}
    for key, metric, average, factor in (
        ("clips_per_s", "clips_per_s", median, 1),
        ("data_wait_percent", "data_wait", fmean, 100),
        ("memory_gb", "memory_gb", max, 1),
    ):
        values = training.curve("train", metric).values()
        if values:
            figures[key] = factor * average(values)
    seconds = training.seconds_by_epoch()
    num_epochs = training.state.progress.num_epochs
    whole = [taken_s for epoch, taken_s in seconds.items() if epoch <= num_epochs]
    if whole:
        figures["minutes_per_epoch"] = fmean(whole) / 60
    if seconds:
        figures["minutes"] = sum(seconds.values()) / 60
    return figures


def _batches(training: Training) -> Figures:
    """Returns the figures of the last refresh."""
    if not training.hardness:
        return {}
    last = training.hardness[-1]
    covered = last.coverage
    figures = {
        "cosine_in_batch": last.mean_cosine,
        "cosine_at_random": last.random_mean_cosine,
        "coverage_percent": None if covered is None else 100 * covered,
        "refresh_s": last.refresh_s,
    }
    return {name: value for name, value in figures.items() if value is not None}


def summary_rows(trainings: Sequence[Training]) -> list[list[str]]:
    """Returns the rows of a table: the name of a figure, and its value for each training."""
    columns = [figures_of(training) for training in trainings]
    names: dict[str, None] = {}  # an ordered set
    for figures in sorted(columns, key=len, reverse=True):
        names |= dict.fromkeys(figures)
    rows = []
    for name in names:
        values = [_text(figures.get(name)) for figures in columns]
        rows.append([_title(name), *values])
    return rows


def _title(name: str) -> str:
    """Returns the title of a figure, such as "final clip-caption"."""
    if name in TITLES:
        return TITLES[name]
    for prefix, words in (("final_", "final "), ("best_valid_", "best validation ")):
        if name.startswith(prefix):
            return words + name.removeprefix(prefix).replace("_", "-")
    return name.replace("_", " ")


def _text(value: Any) -> str:
    """Returns a figure as text, and `-` for none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def difference_rows(trainings: Sequence[Training]) -> list[list[str]]:
    """Returns the settings that are not equal in all trainings: the key, and each value.

    Trainings without a `config.yaml` are not considered.
    """
    columns = [leaves(training.settings) for training in trainings]
    known = [column for column in columns if column]
    keys: dict[tuple[str, ...], None] = {}  # an ordered set
    for column in known:
        keys |= dict.fromkeys(column)
    rows = []
    for key in keys:
        different = {_setting(column, key) for column in known}
        if len(different) > 1 and key not in OWN:
            values = [_setting(column, key) if column else "-" for column in columns]
            rows.append([".".join(key), *values])
    return rows


def _setting(column: dict[tuple[str, ...], Any], key: tuple[str, ...]) -> str:
    """Returns a setting as text."""
    if key not in column:
        return "not set"
    value = column[key]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
