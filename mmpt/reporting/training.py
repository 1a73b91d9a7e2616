"""Curves of a training run, from its `metrics.jsonl` and its log of retrieval hardness."""

from pathlib import Path

from mmpt.reporting.figures import COLOURS, GREY, Line, line_chart
from mmpt.reporting.run import Run, Section
from mmpt.retrieval import HARDNESS_LOG
from mmpt.utils.io import read_json_lines
from mmpt.utils.metrics_log import read_metrics

NOT_CURVES = {
    *("split", "epoch", "update", "time"),
    *("bsz", "wps", "ups", "wpb", "lr", "gnorm", "clip", "clips_per_s", "train_wall", "wall"),
    *("memory_gb", "peak_gb", "gb_free", "best_loss", "videos_per_s", "tflops", "share_of_peak"),
    *("data_wait", "minutes_left", "loss_scale"),
}
"""Keys of `metrics.jsonl` that are not drawn: speed, memory and the like. The others are terms and
metrics of the loss.
"""
LAST = {"accuracy", "temperature"}
"""Metrics that are shown after the terms of the loss."""
_SPLITS = {"train": ("training", COLOURS[0]), "valid": ("validation", COLOURS[1])}


def read_curves(save_dir: str | Path, split: str) -> dict[str, dict[int, float]]:
    """Returns the curves of the terms and metrics of the loss, {name: {update: value}}.

    Values that are not finite are left out.

    Args:
        save_dir: folder of the training run.
        split: `train` or `valid`.
    """
    curves: dict[str, dict[int, float]] = {}
    for row in read_metrics(save_dir):
        if row.get("split") == split:
            for name in row.keys() - NOT_CURVES:
                if row[name] is not None:
                    curves.setdefault(name, {})[row["update"]] = row[name]
    return curves


def read_hardness(save_dir: str | Path) -> list[dict[str, float]]:
    """Returns the last line of each epoch of the hardness log; an empty list without a log."""
    rows = read_json_lines(Path(save_dir) / "retri" / HARDNESS_LOG)
    by_epoch = {row["epoch"]: row for row in rows if "epoch" in row}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def training_section(run: Run) -> list[Section]:
    """Returns the section of training curves; an empty list if there are no logs."""
    folders = dict.fromkeys(Path(row["checkpoint"]).parent for row in run.rows)
    charts = {str(folder): loss_charts(folder) | hardness_charts(folder) for folder in folders}
    found = any(charts.values())
    return [Section("Training", "training.html", {"charts": charts})] if found else []


def loss_charts(save_dir: Path) -> dict[str, str]:
    """Returns {title: SVG} of all terms and metrics that change, the loss first.

    Args:
        save_dir: folder of the training run.
    """
    splits = {split: read_curves(save_dir, split) for split in _SPLITS}
    names = {name for curves in splits.values() for name in curves}
    if len(names - LAST - {"loss"}) == 1:
        names.discard("loss")  # the only term equals the loss
    charts = {}
    for name in sorted(names, key=lambda name: (name != "loss", name in LAST, name)):
        lines = []
        for split, (title, colour) in _SPLITS.items():
            if curve := splits[split].get(name):
                dots = split == "valid"
                lines.append(Line(title, list(curve), list(curve.values()), colour, dots))
        values = {value for line in lines for value in line.ys}
        if len(values) > 1:
            title = name.replace("_", "-")
            charts[title] = line_chart(title, lines, "updates")
    return charts


def hardness_charts(save_dir: Path) -> dict[str, str]:
    """Returns {title: SVG} of the retrieval hardness; empty if no refresh was logged.

    Args:
        save_dir: folder of the training run.
    """
    keys = {"mean_cosine": ("in a batch", COLOURS[0]), "random_mean_cosine": ("at random", GREY)}
    lines = []
    for key, (name, colour) in keys.items():
        points = [(row["epoch"], row[key]) for row in read_hardness(save_dir) if key in row]
        if points:
            epochs, values = zip(*points, strict=True)
            lines.append(Line(name, epochs, values, colour, dots=True))
    title = "retrieval hardness: mean cosine of two videos"
    return {title: line_chart(title, lines, "epoch")} if lines else {}
