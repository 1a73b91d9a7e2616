"""Figures as SVG: lines, heat maps of sentences by seconds, and bars along a video's time.

matplotlib is imported when the first figure is drawn; its global state (pyplot) is not used. Equal
data gives equal SVG. Texts stay texts, which the browser sets in the page's font.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

INK, GRID = "#1f2933", "#e4e9ef"
COLOURS = ("#2563eb", "#d97706", "#15803d", "#9333ea", "#0891b2", "#be123c")
GREY = "#8b98a7"
_FOUND = "#22d3ee"
_MISSING = "#e1e1e1"
_WIDTH = 1120
"""Of a heat map or of bars, in pixels: the width of a section."""
_MOST_POINTS = 400
_SHORTEST = 0.003
"""A stretch of time is drawn with at least this share of the axis, so that it can be seen."""
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_TIP = "tip:"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    xs: ArrayLike
    ys: ArrayLike
    colour: str
    dots: bool = False
    """Whether each point is marked; pointing at a mark shows its values."""


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_title: str,
    size: tuple[int, int] = (360, 215),
    *,
    log_x: bool = False,
) -> str:
    """Returns an SVG of lines over whole numbers.

    Args:
        title: for screen readers; the page shows it.
        size: width and height in pixels.
        log_x: logarithmic x, for values from 1 on.
    """
    with _style():
        figure = _figure(*size)
        axes = figure.subplots()
        for line in lines:
            points = np.stack([line.xs, line.ys])
            step = -(-points.shape[1] // _MOST_POINTS)
            xs, ys = points[:, ::-step][:, ::-1]  # the last point is always among them
            axes.plot(xs, ys, color=line.colour, label=line.name)
            for x, y in zip(xs, ys, strict=True) if line.dots else ():
                (dot,) = axes.plot(x, y, "o", color=line.colour)
                _set_tip(dot, f"{line.name}: {y:.5g} at {x:,.6g}")
        if log_x:
            axes.set_xscale("log")
            axes.minorticks_off()
        else:
            axes.locator_params(axis="x", nbins=5, integer=True)
        axes.locator_params(axis="y", nbins=5)
        axes.xaxis.set_major_formatter("{x:,.6g}")
        axes.yaxis.set_major_formatter("{x:,.6g}")
        axes.margins(x=0.02, y=0.08)
        axes.grid(axis="y")
        axes.set_xlabel(x_title)
        figure.legend(loc="outside upper left", ncols=len(lines))
        return _svg(figure, title)


class Panel(NamedTuple):
    """A matrix of a heat map."""

    title: str
    values: np.ndarray
    """float [S, L]; NaN where there is none."""
    colours: str
    """Name of a matplotlib colour map."""


def heat_maps(
    labels: Sequence[str],
    panels: Sequence[Panel],
    *,
    title: str,
    truth: Sequence[tuple[float, float] | None],
    found: Sequence[tuple[float, float]],
) -> str:
    """Returns an SVG of matrices of sentences by seconds side by side, with times marked.

    Args:
        labels: the sentences [S].
        panels: each with its own range of colours.
        title: for screen readers; the page shows it.
        truth: start and end in seconds of each sentence, where known: outlined.
        found: start and end that the model says: a bar at the foot of the row.
    """
    import matplotlib

    with _style():
        num_rows, seconds = panels[0].values.shape
        figure = _figure(_WIDTH, 22 * num_rows + 70)
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(all_axes, panels, strict=True):
            image = axes.imshow(
                panel.values,
                cmap=matplotlib.colormaps[panel.colours].with_extremes(bad=_MISSING),
                aspect="auto",
                interpolation="none",
                extent=(0, seconds, num_rows, 0),
            )
            figure.colorbar(image, ax=axes, aspect=40, pad=0.01).outline.set_visible(False)
            _mark_times(axes, truth, found, seconds)
            axes.set(title=panel.title, xlabel="seconds", xlim=(0, seconds), ylim=(num_rows, 0))
            axes.set_yticks([])
        rows = np.arange(num_rows) + 0.5
        all_axes[0].set_yticks(rows, [_label(text, 46) for text in labels])
        _set_tips(all_axes[0].get_yticklabels(), labels)
        return _svg(figure, title)


def _mark_times(
    axes: Axes,
    truth: Sequence[tuple[float, float] | None],
    found: Sequence[tuple[float, float]],
    seconds: float,
) -> None:
    """Outlines the true times in white and black, and draws a bar for each found time."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    for row, span in enumerate(truth):
        if span is not None:
            length = max(span[1] - span[0], _SHORTEST * seconds)
            outline = Rectangle((span[0], row + 0.07), length, 0.86, fill=False, edgecolor="white")
            outline.set_path_effects([withStroke(linewidth=2.4, foreground="black")])
            axes.add_patch(outline)
    starts, ends = np.transpose(found)
    lengths = np.maximum(ends - starts, _SHORTEST * seconds)
    feet = np.arange(len(found)) + 0.86
    axes.barh(feet, lengths, 0.2, starts, color=_FOUND, edgecolor="black", linewidth=0.5)


class Bar(NamedTuple):
    """A stretch of time of one colour."""

    start_s: float
    end_s: float
    colour: str
    label: str
    """What it is; shown when pointed at."""


def bars(title: str, rows: Sequence[tuple[str, Sequence[Bar]]], end_s: float) -> str:
    """Returns an SVG of rows of coloured bars over time.

    Args:
        title: for screen readers.
        rows: a name and its bars, from the top.
        end_s: where the time axis ends.
    """
    with _style():
        figure = _figure(_WIDTH, 24 * len(rows) + 24)
        axes = figure.subplots()
        axes.barh(range(len(rows)), end_s, color=GRID)
        for place, (_, row_bars) in enumerate(rows):
            for bar in row_bars:
                length = max(bar.end_s - bar.start_s, _SHORTEST * end_s)
                (drawn,) = axes.barh(place, length, left=bar.start_s, color=bar.colour)
                _set_tip(drawn, f"{bar.label}, {bar.start_s:g} to {bar.end_s:g} s")
        names = [name for name, _ in rows]
        axes.set_yticks(range(len(rows)), [_label(name, 38) for name in names])
        _set_tips(axes.get_yticklabels(), names)
        axes.locator_params(axis="x", nbins=8, integer=True)
        axes.xaxis.set_major_formatter("{x:g} s")
        axes.set(xlim=(0, end_s), ylim=(len(rows) - 0.5, -0.5))
        return _svg(figure, title)


def _style() -> AbstractContextManager[None]:
    """Returns a context in which matplotlib draws as `figures.mplstyle` says."""
    from matplotlib import style

    return style.context(["default", "mmpt.reporting.figures"])


def _figure(width: int, height: int) -> Figure:
    """Returns an empty figure of a size in CSS pixels, 96 to the inch."""
    from matplotlib.figure import Figure

    return Figure((width / 96, height / 96))


def _label(text: str, most: int) -> str:
    """Returns a text on one line, cut to `most` characters, without what XML cannot hold."""
    line = _NOT_XML.sub("?", " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _set_tip(artist: Artist, text: str) -> None:
    """Gives an artist a text that browsers show when it is pointed at."""
    artist.set_gid(_TIP + _NOT_XML.sub("?", text))


def _set_tips(artists: Sequence[Artist], texts: Sequence[str]) -> None:
    for artist, text in zip(artists, texts, strict=True):
        _set_tip(artist, text)
        artist.set(color=INK)


def _svg(figure: Figure, title: str) -> str:
    """Returns the figure as an `<svg>` element for a page: tips become titles, other names go."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Matplotlib's font has few; the browser's have more.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(
            buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    root = ElementTree.fromstring(buffer.getvalue())
    for group in root.iter(f"{{{_SVG}}}g"):
        name = group.attrib.pop("id", "")
        if name.startswith(_TIP):
            tip = ElementTree.Element(f"{{{_SVG}}}title")
            tip.text = name.removeprefix(_TIP)
            group.insert(0, tip)
    root.attrib |= {"role": "img", "aria-label": title}
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")
