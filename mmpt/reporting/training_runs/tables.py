"""Tables about training runs: their summaries, and the settings in which they differ."""

import json
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from mmpt.config.origins import leaves
from mmpt.reporting.training_runs.charts import metric_names
from mmpt.reporting.training_runs.run import TrainingRun
from mmpt.reporting.training_runs.state import best_metric

Summary = dict[str, Any]
OUTPUT_FOLDERS = {
    ("fairseq", "checkpoint", "save_dir"),
    ("fairseq", "common", "tensorboard_logdir"),
    ("eval", "save_path"),
}
"""Settings that name folders for the results of a training run. They are not compared."""
TITLES = {
    "best_valid_update": "best validation after update",
    "clips_per_s": "clips per second",
    "data_wait_percent": "waiting for data, %",
    "memory_gb": "memory, GB",
    "cosine_in_batch": "cosine in a batch",
    "coverage_percent": "coverage, %",
    "refresh_s": "refresh, seconds",
}
"""Titles in tables for the values whose names alone would not be clear."""


def summary_of(run: TrainingRun) -> Summary:
    """Returns the summary of a training run, {name: value}. Values that are unknown are absent.

    `final_*` are the values in the last line of the log, which are means since the line before.
    `minutes*` do not include interruptions, and `minutes_per_epoch` is the mean over the complete
    epochs. `pretraining.md` describes the other values.
    """
    progress = run.state.progress
    summary: Summary = {
        "state": run.state.condition,
        "epoch": progress.epoch,
        "updates": progress.num_updates,
    }
    trained = run.lines_of("train")
    for name in dict.fromkeys(["loss", *metric_names([run])]):
        if trained and name in trained[-1].metrics:
            summary[f"final_{name}"] = trained[-1].metrics[name]
    return summary | _best_validation(run) | _speed(run) | _batches(run)


def _best_validation(run: TrainingRun) -> Summary:
    name, is_maximum = best_metric(run.settings)
    curve = run.curve("valid", name)
    if not curve:
        return {}
    choose = max if is_maximum else min
    update = choose(curve, key=lambda update: curve[update])
    return {f"best_valid_{name}": curve[update], "best_valid_update": update}


def _speed(run: TrainingRun) -> Summary:
    summary: Summary = {}
    for key, metric, average, factor in (
        ("clips_per_s", "clips_per_s", median, 1),
        ("data_wait_percent", "data_wait", fmean, 100),
        ("memory_gb", "memory_gb", max, 1),
    ):
        values = run.curve("train", metric).values()
        if values:
            summary[key] = factor * average(values)
    seconds = run.seconds_by_epoch()
    num_epochs = run.state.progress.num_epochs
    whole = [taken_s for epoch, taken_s in seconds.items() if epoch <= num_epochs]
    if whole:
        summary["minutes_per_epoch"] = fmean(whole) / 60
    if seconds:
        summary["minutes"] = sum(seconds.values()) / 60
    return summary


def _batches(run: TrainingRun) -> Summary:
    """Returns the values of the last refresh."""
    if not run.hardness:
        return {}
    last = run.hardness[-1]
    covered = last.coverage
    summary = {
        "cosine_in_batch": last.mean_cosine,
        "cosine_at_random": last.random_mean_cosine,
        "coverage_percent": None if covered is None else 100 * covered,
        "refresh_s": last.refresh_s,
    }
    return {name: value for name, value in summary.items() if value is not None}


def summary_rows(runs: Sequence[TrainingRun]) -> list[list[str]]:
    """Returns the rows of a table: the title of a value, and the value in each training run."""
    columns = [summary_of(run) for run in runs]
    names: dict[str, None] = {}  # an ordered set
    for summary in sorted(columns, key=len, reverse=True):
        names |= dict.fromkeys(summary)
    rows = []
    for name in names:
        values = [_text(summary.get(name)) for summary in columns]
        rows.append([_title(name), *values])
    return rows


def _title(name: str) -> str:
    """Returns the title of a value, such as "final clip-caption"."""
    if name in TITLES:
        return TITLES[name]
    for prefix, words in (("final_", "final "), ("best_valid_", "best validation ")):
        if name.startswith(prefix):
            return words + name.removeprefix(prefix).replace("_", "-")
    return name.replace("_", " ")


def _text(value: Any) -> str:
    """Returns a value as text, and `-` for none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def difference_rows(runs: Sequence[TrainingRun]) -> list[list[str]]:
    """Returns the settings that are not equal in all training runs: the key, and each value.

    Training runs without a `config.yaml` are not considered.
    """
    columns = [leaves(run.settings) for run in runs]
    known = [column for column in columns if column]
    keys: dict[tuple[str, ...], None] = {}  # an ordered set
    for column in known:
        keys |= dict.fromkeys(column)
    rows = []
    for key in keys:
        different = {_setting(column, key) for column in known}
        if len(different) > 1 and key not in OUTPUT_FOLDERS:
            values = [_setting(column, key) if column else "-" for column in columns]
            rows.append([".".join(key), *values])
    return rows


def _setting(column: dict[tuple[str, ...], Any], key: tuple[str, ...]) -> str:
    """Returns a setting as text."""
    if key not in column:
        return "not set"
    value = column[key]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
