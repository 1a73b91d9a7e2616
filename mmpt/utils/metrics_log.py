"""The log of a training run's metrics, `metrics.jsonl`.

It has one JSON object per line: one for each log interval and one for each validation.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpt.utils.io import atomic_write, read_json_lines, writing

METRICS_LOG = "metrics.jsonl"
Row = dict[str, Any]

BOOKKEEPING = {
    *("split", "epoch", "update", "num_updates", "time", "wall", "train_wall"),
    *("bsz", "wps", "ups", "wpb", "clips_per_s", "videos_per_s"),
    *("lr", "gnorm", "clip", "loss_scale", "best_loss"),
    *("memory_gb", "peak_gb", "gb_free", "tflops", "mfu", "data_wait"),
    *("minutes_left",),
}
"""Keys of a line about speed, memory and the like. The others are terms and metrics of the loss."""


SPEEDS = {
    *("wps", "ups", "clips_per_s", "videos_per_s"),
    *("tflops", "mfu", "data_wait"),
}
"""Keys of rates per second. fairseq's meters begin with the second update, and are 0 before."""


def known_metrics(stats: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics of fairseq whose values are known, as numbers.

    Rates are not known after a single batch or update, for example in a short validation.
    """
    has_rates = stats.get("clips_per_s") != 0
    known = {}
    for name, value in stats.items():
        if value is not None and (has_rates or name not in SPEEDS):
            known[name] = float(value)
    return known


class MetricsLog:
    """A writer of `<folder>/metrics.jsonl`. Only one process of a run may have one.

    A run that continues from a checkpoint repeats the updates after the checkpoint. Their lines
    are therefore removed first. So is a last line that was cut short when the run was killed.

    Args:
        folder: the run's `save_dir`.
        num_updates: number of completed updates when the run starts or continues.
        is_valid_due: True if the run begins with the validation after this number of updates. An
            old line of this validation is then removed, too.
    """

    def __init__(
        self, folder: str | Path, num_updates: int, *, is_valid_due: bool = False
    ):
        self._path = Path(folder) / METRICS_LOG
        rows = read_metrics(folder)
        with atomic_write(self._path) as file:
            for row in rows:
                is_repeated = is_valid_due and row.get("split") == "valid"
                if row["update"] <= num_updates - is_repeated:
                    line = json.dumps(row)
                    file.write(line + "\n")

    def append(
        self, split: str, epoch: int, update: int, metrics: Mapping[str, float]
    ) -> None:
        """Appends a line. Values that are not finite are written as null.

        Args:
            split: `train` (means since the previous line of this split) or `valid`.
            epoch: the epoch, counted from 1.
            update: number of completed updates.
            metrics: values by name.
        Raises:
            DataError: the disk is full, or the file cannot be written.
        """
        now = round(time.time(), 1)
        row: Row = {"split": split, "epoch": epoch, "update": update, "time": now}
        for name, value in metrics.items():
            # Metrics with the name of one of these four fields are dropped.
            is_finite = math.isfinite(value)
            row.setdefault(name, value if is_finite else None)
        line = json.dumps(row, allow_nan=False)
        with writing(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def close(self) -> None:
        """Does nothing: each line has been written."""


def read_metrics(folder: str | Path) -> list[Row]:
    """Returns the lines of `<folder>/metrics.jsonl` in the order in which they were written.

    A missing log gives an empty list.
    """
    path = Path(folder) / METRICS_LOG
    rows = read_json_lines(path)
    return [row for row in rows if isinstance(row.get("update"), int)]
