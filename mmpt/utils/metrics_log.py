"""`metrics.jsonl`: a training run's metrics, one JSON object per log interval and per
validation.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpt.utils.io import atomic_write, read_json_lines, writing

METRICS_LOG = "metrics.jsonl"


class MetricsLog:
    """Appends metrics to `<folder>/metrics.jsonl`; one process of a run may hold it.

    A run that continues from a checkpoint repeats the updates after it, so the lines of these are
    removed first. The same goes for a last line that was cut short when the run was killed.

    Args:
        folder: the run's `save_dir`.
        num_updates: updates that are complete when the run starts or continues.
    """

    def __init__(self, folder: str | Path, num_updates: int):
        self._path = Path(folder) / METRICS_LOG
        kept = [row for row in read_metrics(folder) if row["update"] <= num_updates]
        with atomic_write(self._path) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)

    def append(self, split: str, epoch: int, update: int, metrics: Mapping[str, float]) -> None:
        """Writes one line; a value that is not finite is written as null.

        Args:
            split: `train` (the mean since the last line of this split) or `valid`.
            epoch: counted from 1.
            update: updates that are complete.
            metrics: name -> value.
        Raises:
            DataError: the disk is full, or the file cannot be written.
        """
        values = {name: v if math.isfinite(v) else None for name, v in metrics.items()}
        place = {"split": split, "epoch": epoch, "update": update, "time": round(time.time(), 1)}
        with writing(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(place | values | place, allow_nan=False) + "\n")


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of `<folder>/metrics.jsonl` in the order of writing; none without a log."""
    rows = read_json_lines(Path(folder) / METRICS_LOG)
    return [row for row in rows if isinstance(row.get("update"), int)]
