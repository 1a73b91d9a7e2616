"""Curves of a training run: `metrics.jsonl` next to the checkpoint, and the hardness of its retrieved batches."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mmpt.reporting.charts import COLOURS, GREY, Line, line_chart
from mmpt.reporting.markup import Section, escape, note, tag
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
"""Keys of `metrics.jsonl` about place, speed and bookkeeping; the others are terms and metrics of the loss."""
_SPLITS = {"train": "training", "valid": "validation"}
_LOSS_DIGITS = 1e-3
"""Precision to which the loss is logged (its terms have a digit more)."""


class Curve(NamedTuple):
    """A number over updates."""

    steps: list[int]
    values: list[float]


def read_curves(save_dir: str | Path, split: str) -> dict[str, Curve]:
    """Returns the terms and metrics of the loss in `metrics.jsonl` by name, without values that are not finite.

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
    """Returns the lines of the hardness log by epoch, the last one of each; none if there is no log."""
    rows = read_json_lines(Path(save_dir) / "retri" / HARDNESS_LOG)
    by_epoch = {row["epoch"]: row for row in rows if "epoch" in row}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def training_section(run: Run) -> Section | None:
    """Return the curves of every checkpoint that lies beside its training's logs; None where no log is found."""
    blocks, silent = [], []
    for folder in dict.fromkeys(Path(row["checkpoint"]).parent for row in run.rows):
        charts = [*loss_charts(folder), *hardness_charts(folder)]
        if charts:
            blocks.append(tag("h3", escape(folder)) + tag("div", "".join(charts), class_="charts"))
        else:
            silent.append(str(folder))
    if not blocks:
        return None
    rest = note(f"No training logs in {', '.join(silent)}.") if silent else ""
    return Section(
        "Training",
        "".join(blocks) + rest,
        "Terms and metrics of the loss over updates: the mean since the last log line, and on the validation set after "
        "each epoch. Hardness is how similar the videos of a retrieved batch are.",
    )


def loss_charts(save_dir: Path) -> list[str]:
    """Return a chart per loss term and metric that changes, the loss first."""
    splits = {title: read_curves(save_dir, split) for split, title in _SPLITS.items()}
    names = dict.fromkeys(name for curves in splits.values() for name in curves)
    if any(
        _same(curves.get("loss"), curves.get(name)) for curves in splits.values() for name in names if name != "loss"
    ):
        names.pop("loss", None)  # there is one term, and it is the loss
    charts = []
    for name in sorted(names, key=lambda name: (name != "loss", name in ("accuracy", "temperature"), name)):
        found = {title: curves[name] for title, curves in splits.items() if name in curves}
        if len({value for curve in found.values() for value in curve.values}) < 2:
            continue
        colours = dict(zip(_SPLITS.values(), COLOURS, strict=False))
        lines = [
            Line(name=title, xs=curve.steps, ys=curve.values, colour=colours[title], dots=title != "training")
            for title, curve in found.items()
        ]
        charts.append(line_chart(name.replace("_", "-"), lines, "updates"))
    return charts


def _same(loss: Curve | None, term: Curve | None) -> bool:
    """Say whether a term is the whole loss, which is logged with fewer digits."""
    if loss is None or term is None or loss.steps != term.steps:
        return False
    return max(abs(a - b) for a, b in zip(loss.values, term.values, strict=True)) <= _LOSS_DIGITS


def hardness_charts(save_dir: Path) -> list[str]:
    """Return the chart of retrieval hardness, or none when no refresh was logged."""
    rows = [row for row in read_hardness(save_dir) if "mean_cosine" in row]
    if not rows:
        return []
    lines = [
        Line(
            name=title,
            xs=[row["epoch"] for row in rows if key in row],
            ys=[row[key] for row in rows if key in row],
            colour=colour,
            dots=True,
        )
        for key, title, colour in (("mean_cosine", "in a batch", COLOURS[0]), ("random_mean_cosine", "at random", GREY))
    ]
    return [line_chart("retrieval hardness: mean cosine of two videos", lines, "epoch")]
