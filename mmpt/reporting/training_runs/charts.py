"""Draws the curves of training runs. The curves of several training runs are in the same charts."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from mmpt.reporting.figures import COLOURS, Line, line_chart
from mmpt.reporting.training_runs.run import TrainingRun
from mmpt.utils.metrics_log import BOOKKEEPING

_MORE_COLOURS = ("#ec4899", "#84cc16", "#64748b", "#a16207", "#2dd4bf", "#7c6f64")
_CYCLE = (*COLOURS, *_MORE_COLOURS)
"""Colours of several training runs. They can be read on a light and on a dark page."""
SPEED = {
    "clips_per_s": "clips per second",
    "data_wait": "fraction of time spent waiting for data",
    "memory_gb": "memory in GB",
    "tflops": "teraflops",
    "mfu": "model FLOPs utilization (MFU)",
}
"""Metrics of speed and memory, and their titles."""
LAST = {"accuracy", "temperature"}
"""Metrics that are shown after the terms of the loss."""


class Kind(NamedTuple):
    """A kind of curve, such as the validation loss. A chart shows it for each training run."""

    name: str
    curve: Callable[[TrainingRun], Mapping[int, float]]
    """Returns {update or epoch: value}."""
    dots: bool = False
    """Whether each point is marked."""


def colour_of(place: int) -> str:
    """Returns the colour of a training run on a page with several."""
    return _CYCLE[place % len(_CYCLE)]


def metric_names(runs: Sequence[TrainingRun]) -> list[str]:
    """Returns the terms and metrics of the loss, the loss first.

    The loss is left out if there is only one term, to which it is equal.
    """
    names: set[str] = set()
    for run in runs:
        for line in run.lines:
            names.update(line.metrics)
    names -= BOOKKEEPING
    if len(names - LAST - {"loss"}) == 1:
        names.discard("loss")
    return sorted(names, key=lambda name: (name != "loss", name in LAST, name))


def loss_charts(runs: Sequence[TrainingRun]) -> dict[str, str]:
    """Returns {title: SVG} of the terms and metrics of the loss that change."""
    charts = {}
    for name in metric_names(runs):
        kinds = [
            Kind("training", partial(_curve, "train", name)),
            Kind("validation", partial(_curve, "valid", name), dots=True),
        ]
        title = name.replace("_", "-")
        charts[title] = _chart(runs, title, "updates", kinds)
    title = "learning rate"
    rate = Kind(title, partial(_curve, "train", "lr"))
    charts[title] = _chart(runs, title, "updates", [rate])
    return _drawn(charts)


def speed_charts(runs: Sequence[TrainingRun]) -> dict[str, str]:
    """Returns {title: SVG} of speed and memory."""
    charts = {}
    for name, title in SPEED.items():
        kind = Kind(title, partial(_curve, "train", name))
        charts[title] = _chart(runs, title, "updates", [kind])
    title = "minutes per epoch"
    minutes = Kind(title, _minutes, dots=True)
    charts[title] = _chart(runs, title, "epoch", [minutes])
    return _drawn(charts)


def retrieval_charts(runs: Sequence[TrainingRun]) -> dict[str, str]:
    """Returns {title: SVG} of the retrieved batches."""
    cosines = [
        Kind("in a batch", partial(_hardness, "mean_cosine"), dots=True),
        Kind("at random", partial(_hardness, "random_mean_cosine"), dots=True),
    ]
    coverage = Kind("coverage", partial(_hardness, "coverage"), dots=True)
    seconds = Kind("refresh", partial(_hardness, "refresh_s"), dots=True)
    charts = {}
    for title, kinds in (
        ("mean cosine of two videos", cosines),
        ("fraction of videos in the epoch", [coverage]),
        ("seconds of the refresh", [seconds]),
    ):
        charts[title] = _chart(runs, title, "epoch", kinds)
    return _drawn(charts)


def _curve(split: str, metric: str, run: TrainingRun) -> dict[int, float]:
    return run.curve(split, metric)


def _minutes(run: TrainingRun) -> dict[int, float]:
    seconds = run.seconds_by_epoch()
    return {epoch: value / 60 for epoch, value in seconds.items()}


def _hardness(name: str, run: TrainingRun) -> dict[int, float]:
    values = {}
    for line in run.hardness:
        value = getattr(line, name)
        if value is not None:
            values[line.epoch] = value
    return values


def _chart(
    runs: Sequence[TrainingRun], title: str, x_title: str, kinds: Sequence[Kind]
) -> str:
    """Returns an SVG; an empty text if all values are equal.

    For a single run, each kind of curve has a colour. For several runs, each run has a colour, and
    the curves of the second kind are dashed.
    """
    is_single = len(runs) == 1
    lines = []
    values: set[float] = set()
    for place, run in enumerate(runs):
        for order, kind in enumerate(kinds):
            curve = kind.curve(run)
            if not curve:
                continue
            name = kind.name
            colour = COLOURS[order]
            if not is_single:
                name = f"{run.name}, {kind.name}"
                colour = colour_of(place)
            dashed = order > 0 and not is_single
            xs = list(curve)
            ys = list(curve.values())
            lines.append(Line(name, xs, ys, colour, kind.dots, dashed))
            values.update(ys)
    if len(values) < 2:
        return ""
    legend = is_single and len(kinds) > 1
    return line_chart(title, lines, x_title, legend=legend)


def _drawn(charts: Mapping[str, str]) -> dict[str, str]:
    """Returns the charts that are not empty."""
    return {title: figure for title, figure in charts.items() if figure}
