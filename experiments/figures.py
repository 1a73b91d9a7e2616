"""Figures of the results: gains of arms, gains by level, and curves over the constant of DTW."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.arms import Arm
from experiments.offsets import CONSTANTS
from experiments.tables import (
    AUC,
    AVERAGE,
    AVERAGE_BG,
    CLIP,
    DTW,
    DTW_BG_CALIBRATED,
    DTW_CALIBRATED,
    BySeed,
    Number,
    gain,
)
from mmpt.reporting.figures import COLOURS, GREY

SHOWN: dict[str, Number] = {
    "clip": CLIP,
    "video, caption average": AVERAGE,
    "video, DTW": DTW,
    "video, DTW calibrated": DTW_CALIBRATED,
    "background, caption average": AVERAGE_BG,
    "background, DTW calibrated": DTW_BG_CALIBRATED,
    "alignment AUC": AUC,
}
"""Title of a panel -> its number."""
BY_LEVEL = {
    title: SHOWN[title] for title in ("clip", "video, caption average", "alignment AUC")
}
MAX_COLUMNS = 4
"""Largest number of panels next to each other."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "mmpt",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 9,
}
Results = Mapping[str, BySeed]
"""Name of an arm -> its results by seed."""


def draw_gains(arms: Sequence[Arm], by_arm: Results, path: Path) -> bool:
    """Draws the gains of all arms with standard errors, one panel per number.

    Returns:
        False if there are no gains.
    """
    shown = [
        arm for arm in arms if arm.against and by_arm[arm.name] and by_arm[arm.against]
    ]
    if not shown:
        return False
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 1.4 + 0.28 * len(shown)), layout="constrained")
        panels = figure.subplots(1, len(SHOWN), sharey=True, squeeze=False)[0]
        places = np.arange(len(shown))[::-1]
        for panel, (title, number) in zip(panels, SHOWN.items(), strict=True):
            for place, arm in zip(places, shown, strict=True):
                found = gain(number, by_arm[arm.name], by_arm[arm.against])
                if found:
                    # A mark without filling is a single seed, which has no standard error.
                    is_single = found.num_seeds == 1
                    panel.errorbar(
                        found.mean,
                        place,
                        xerr=np.nan_to_num(found.error),
                        fmt="o",
                        color=COLOURS[0],
                        markerfacecolor="white" if is_single else COLOURS[0],
                    )
            panel.axvline(0, color=GREY, linewidth=1)
            panel.set_title(title.replace(", ", "\n"))
            panel.set_xlabel("gain in points")
        panels[0].set_yticks(places, [arm.title for arm in shown])
        _save(figure, path)
    return True


def draw_levels(arms: Sequence[Arm], by_arm: Results, x_title: str, path: Path) -> bool:
    """Draws the gains over `Arm.level`, one panel for each title in `Arm.panel`.

    Returns:
        False if there are no results.
    """
    names = list(
        dict.fromkeys(arm.panel for arm in arms if arm.panel and by_arm[arm.name])
    )
    if not names:
        return False
    with rc_context(STYLE):
        num_columns = min(len(names), MAX_COLUMNS)
        num_rows = math.ceil(len(names) / num_columns)
        size = (2.4 * num_columns + 1.5, 2.5 * num_rows + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for unused in panels[len(names) :]:
            unused.set_axis_off()
        for panel, name in zip(panels, names, strict=False):
            members = [arm for arm in arms if arm.panel == name and by_arm[arm.name]]
            for colour, (title, number) in zip(COLOURS, BY_LEVEL.items(), strict=False):
                _draw_levels(panel, members, by_arm, number, title, colour)
            panel.axhline(0, color=GREY, linewidth=1)
            panel.set_title(name)
            panel.set_xlabel(x_title)
        for row in grid:
            row[0].set_ylabel("gain in points")
        panels[len(names) - 1].legend(fontsize=7)
        _save(figure, path)
    return True


def _draw_levels(
    panel: Axes,
    arms: Sequence[Arm],
    by_arm: Results,
    number: Number,
    title: str,
    colour: str,
) -> None:
    """Draws the gain in one number as a line over the levels."""
    levels, means, errors = [], [], []
    for arm in arms:
        found = gain(number, by_arm[arm.name], by_arm[arm.against])
        if found and arm.level is not None:
            levels.append(arm.level)
            means.append(found.mean)
            errors.append(np.nan_to_num(found.error))
    panel.errorbar(
        levels, means, yerr=errors, fmt="o-", color=colour, label=title, capsize=2
    )


def draw_offsets(arms: Sequence[Arm], by_arm: Results, path: Path) -> bool:
    """Draws R@1 over the constant in the distances.

    Each way to align has a column of panels. The upper row is without background. A dot is the
    recall with the calibrated constant.

    Returns:
        False if there are no results.
    """
    with_curves = {}
    for arm in arms:
        finished = [row for row in by_arm[arm.name].values() if row["curves"]]
        if finished:
            with_curves[arm.title] = finished
    if not with_curves:
        return False
    ways = ("DTW", "DTW-corrected", "OTAM")
    rows = {"clips": "Calibrated", "background": "CalibratedBG"}
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 6), layout="constrained")
        panels = figure.subplots(
            len(rows), len(ways), sharex=True, sharey="row", squeeze=False
        )
        for line, (name, metric) in zip(panels, rows.items(), strict=True):
            for panel, way in zip(line, ways, strict=True):
                coloured = zip(COLOURS, with_curves.items(), strict=False)
                for colour, (title, results) in coloured:
                    curves = np.array([row["curves"][name][way] for row in results])
                    panel.plot(
                        CONSTANTS, 100 * curves.mean(0), color=colour, label=title
                    )
                    dots = [_calibrated(row, metric, way) for row in results]
                    x, y = np.mean(dots, axis=0)
                    panel.plot(x, y, "o", color=colour)
                panel.set_title(f"{way}, {name}")
                panel.set_xlabel("constant c of the distance c - score")
            line[0].set_ylabel("R@1 in percent")
        panels[0][0].legend(fontsize=7)
        _save(figure, path)
    return True


def _calibrated(row: Mapping[str, Any], metric: str, way: str) -> tuple[float, float]:
    """Returns the calibrated constant of a run and its R@1 in percent."""
    values = row["metrics"][metric]
    return values[f"{way}-constant"], 100 * values[f"{way}-R1"]


def _save(figure: Figure, path: Path) -> None:
    """Writes a figure as SVG. The same results give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
