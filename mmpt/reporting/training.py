"""Curves of a training run: its `metrics.jsonl` and the hardness of its retrieved batches."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mmpt.reporting.figures import COLOURS, GREY, Line, line_chart
from mmpt.reporting.pictures import Section
from mmpt.reporting.run import Run
from mmpt.retrieval import HARDNESS_LOG
from mmpt.utils.io import read_json_lines
from mmpt.utils.metrics_log import read_metrics

NOT_CURVES = {
    *("split", "epoch", "update", "time"),
    *("bsz", "wps", "ups", "wpb", "lr", "gnorm", "clip", "clips_per_s", "train_wall", "wall"),
    *("memory_gb", "peak_gb", "gb_free", "best_loss", "videos_per_s", "tflops", "share_of_peak"),
    *("data_wait", "minutes_left", "loss_scale"),
}
"""Keys of `metrics.jsonl` about speed and bookkeeping; the others are about the loss."""
LAST = {"accuracy", "temperature"}
"""Metrics that are shown after the terms of the loss."""
_SPLITS = {"train": "training", "valid": "validation"}
_COLOURS = dict(zip(_SPLITS.values(), COLOURS, strict=False))
_LOSS_DIGITS = 1e-3
"""Precision to which the loss is logged (its terms have a digit more)."""


class Curve(NamedTuple):
    """A number over updates."""

    steps: list[int]
    values: list[float]


def read_curves(save_dir: str | Path, split: str) -> dict[str, Curve]:
    """Returns the terms and metrics of the loss by name, without values that are not finite.

    Args:
        split: `train` or `valid`.
    """
    curves: dict[str, Curve] = {}
    for row in read_metrics(save_dir):
        if row.get("split") == split:
            for name in row.keys() - NOT_CURVES:
                if row[name] is not None:
                    curve = curves.setdefault(name, Curve([], []))
                    curve.steps.append(row["update"])
                    curve.values.append(row[name])
    return curves


def read_hardness(save_dir: str | Path) -> list[dict[str, float]]:
    """Returns the last line of each epoch in the hardness log; none if there is no log."""
    rows = read_json_lines(Path(save_dir) / "retri" / HARDNESS_LOG)
    by_epoch = {row["epoch"]: row for row in rows if "epoch" in row}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def training_section(run: Run) -> Section | None:
    """Returns the curves of the checkpoints that lie next to logs; None without any."""
    folders = list(dict.fromkeys(Path(row["checkpoint"]).parent for row in run.rows))
    charts = {str(folder): loss_charts(folder) | hardness_charts(folder) for folder in folders}
    if not any(charts.values()):
        return None
    return Section("Training", "training.html", {"charts": charts})


def loss_charts(save_dir: Path) -> dict[str, str]:
    """Returns a chart per loss term and metric that changes, by title, the loss first."""
    splits = {title: read_curves(save_dir, split) for split, title in _SPLITS.items()}
    names = {name for curves in splits.values() for name in curves}
    if any(_is_whole_loss(curves, name) for curves in splits.values() for name in names):
        names.discard("loss")  # there is one term, and it is the loss
    charts = {}
    for name in sorted(names, key=lambda name: (name != "loss", name in LAST, name)):
        found = {title: curves[name] for title, curves in splits.items() if name in curves}
        if len({value for curve in found.values() for value in curve.values}) > 1:
            lines = [
                Line(title, *curve, _COLOURS[title], dots=title == "validation")
                for title, curve in found.items()
            ]
            title = name.replace("_", "-")
            charts[title] = line_chart(title, lines, "updates")
    return charts


def _is_whole_loss(curves: dict[str, Curve], name: str) -> bool:
    """True for a term that is all of the loss, which is logged with fewer digits."""
    loss, term = curves.get("loss"), curves.get(name)
    if name == "loss" or loss is None or term is None or loss.steps != term.steps:
        return False
    return max(abs(a - b) for a, b in zip(loss.values, term.values, strict=True)) <= _LOSS_DIGITS


def hardness_charts(save_dir: Path) -> dict[str, str]:
    """Returns the chart of retrieval hardness by its title; none when no refresh was logged."""
    keys = {"mean_cosine": ("in a batch", COLOURS[0]), "random_mean_cosine": ("at random", GREY)}
    lines = []
    for key, (name, colour) in keys.items():
        rows = [row for row in read_hardness(save_dir) if key in row]
        epochs, values = [row["epoch"] for row in rows], [row[key] for row in rows]
        lines += [Line(name, epochs, values, colour, dots=True)] if rows else []
    title = "retrieval hardness: mean cosine of two videos"
    return {title: line_chart(title, lines, "epoch")} if lines else {}
