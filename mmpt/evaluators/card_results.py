"""Results of evaluations in the form that model cards of the Hugging Face Hub have."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from mmpt.errors import DataError
from mmpt.evaluators import published
from mmpt.evaluators.base import MetricValue
from mmpt.evaluators.evaluator import read_results
from mmpt.evaluators.table import numbers_of
from mmpt.utils.io import file_hash


def card_results(
    paths: Sequence[str | Path], checkpoint: str | Path
) -> list[EvalResult]:
    """Returns the results of a checkpoint, for its model card.

    Args:
        paths: results files, as `mmpt predict` writes them.
        checkpoint: the checkpoint. Rows of other checkpoints are left out.
    Raises:
        DataError: a file is not a results file, or has no row of the checkpoint.
    """
    fingerprint = file_hash(checkpoint)
    results: list[EvalResult] = []
    for path in paths:
        rows = [row for row in read_results(path) if row["fingerprint"] == fingerprint]
        if not rows:
            raise DataError(
                f"{path}: must have results of {checkpoint}, but has none of this file. Score it: "
                "mmpt predict YAML"
            )
        for row in rows:
            results += _row_results(row)
    return results


def _row_results(row: dict[str, Any]) -> list[EvalResult]:
    """Returns an entry for each number of a row of a results file."""
    task = row.get("task") or "unknown"
    results = []
    for metric, values in row["metrics"].items():
        for number in numbers_of(metric, {"": row["metrics"]}):
            if number.name in values:
                entry = EvalResult(
                    task_type=_task_type(metric),
                    dataset_type=task,
                    dataset_name=_test_name(task, row),
                    metric_type=number.name,
                    metric_name=number.title,
                    metric_value=_shown_value(values[number.name], number),
                )
                results.append(entry)
    return results


def _task_type(metric: str) -> str:
    """Returns the name of a task from that of its metric: `retrieval` for RetrievalMetric."""
    words = re.findall(
        r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", metric.removesuffix("Metric")
    )
    return "-".join(words).lower()


def _test_name(task: str, row: dict[str, Any]) -> str:
    """Returns the name of a test set for readers, and how much of it was left out."""
    key = published.benchmark_key(task)
    name = task
    if key in published.published_benchmarks():
        benchmark = published.published_benchmarks()[key]
        name = f"{benchmark.title}, {benchmark.setting}"
    missing = row.get("num_missing", 0)
    if missing:
        name += f" ({missing:,} items left out)"
    return name


def _shown_value(value: float, number: MetricValue) -> float:
    """Returns a share in percent, and a rank as it is."""
    if number.unit == "share":
        value = 100 * value
    return round(value, 2)
