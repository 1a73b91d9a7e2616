"""Curves of a training run, from its `metrics.jsonl` and its log of retrieval hardness."""

from collections import defaultdict
from pathlib import Path

from mmpt.reporting.figures import COLOURS, GREY, Line, line_chart
from mmpt.reporting.run import Run, Section
from mmpt.retrieval import HARDNESS_LOG
from mmpt.utils.io import read_json_lines
from mmpt.utils.metrics_log import BOOKKEEPING, read_metrics

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
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for row in read_metrics(save_dir):
        if row.get("split") != split:
            continue
        for name, value in row.items():
            if name not in BOOKKEEPING and value is not None:
                curves[name][row["update"]] = value
    return curves


def read_hardness(save_dir: str | Path) -> list[dict[str, float]]:
    """Returns the last line of each epoch of the hardness log; an empty list without a log."""
    rows = read_json_lines(Path(save_dir) / "retri" / HARDNESS_LOG)
    by_epoch = {row["epoch"]: row for row in rows if "epoch" in row}
    return [row for _, row in sorted(by_epoch.items())]


def training_section(run: Run) -> list[Section]:
    """Returns the section of training curves; an empty list if there are no logs."""
    charts = {}
    for row in run.rows:
        folder = Path(row["checkpoint"]).parent
        if str(folder) not in charts:
            charts[str(folder)] = loss_charts(folder) | hardness_charts(folder)
    if not any(charts.values()):
        return []
    return [Section("Training", "training.html", {"charts": charts})]


def loss_charts(save_dir: Path) -> dict[str, str]:
    """Returns {title: SVG} of all terms and metrics that change, the loss first.

    Args:
        save_dir: folder of the training run.
    """
    curves = {split: read_curves(save_dir, split) for split in _SPLITS}
    names = curves["train"].keys() | curves["valid"].keys()
    terms = names - LAST - {"loss"}
    if len(terms) == 1:
        names.discard("loss")  # the only term equals the loss
    charts = {}
    for name in sorted(names, key=_order):
        lines = []
        values: set[float] = set()
        for split, (title, colour) in _SPLITS.items():
            curve = curves[split].get(name, {})
            if not curve:
                continue
            updates, ys = zip(*curve.items(), strict=True)
            lines.append(Line(title, updates, ys, colour, dots=split == "valid"))
            values.update(ys)
        if len(values) > 1:
            title = name.replace("_", "-")
            charts[title] = line_chart(title, lines, "updates")
    return charts


def _order(name: str) -> tuple[bool, bool, str]:
    """Returns the key that sorts names: the loss first, then its terms, then other metrics."""
    return name != "loss", name in LAST, name


def hardness_charts(save_dir: Path) -> dict[str, str]:
    """Returns {title: SVG} of the retrieval hardness; empty if no refresh was logged.

    Args:
        save_dir: folder of the training run.
    """
    keys = (
        ("mean_cosine", "in a batch", COLOURS[0]),
        ("random_mean_cosine", "at random", GREY),
    )
    rows = read_hardness(save_dir)
    lines = []
    for key, name, colour in keys:
        known = [row for row in rows if key in row]
        if known:
            epochs = [row["epoch"] for row in known]
            values = [row[key] for row in known]
            lines.append(Line(name, epochs, values, colour, dots=True))
    if not lines:
        return {}
    title = "retrieval hardness: mean cosine of two videos"
    return {title: line_chart(title, lines, "epoch")}
