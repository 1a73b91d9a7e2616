"""Draws figures as SVG: line charts, heat maps of sentences by seconds, and bars over time.

Global state of matplotlib (pyplot) is not used, and the same data gives the same SVG. Text stays
text instead of becoming paths, so that the browser shows it in the font of the page. The colours of
the theme become CSS variables, so that a page can have a light and a dark theme.
"""

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from mmpt.inference.alignment import Alignment

_STYLE = ("default", "mmpt.reporting.figures")
"""The defaults of matplotlib, then `figures.mplstyle`. Settings of the user have no effect."""
INK, GRID = "#1f2933", "#e4e9ef"
COLOURS = ("#2563eb", "#d97706", "#15803d", "#9333ea", "#0891b2", "#be123c")
GREY = "#8b98a7"
_THEME = {INK: "--ink", "#616e7c": "--soft", GRID: "--grid"}
_THEME |= {colour: f"--c{place}" for place, colour in enumerate(COLOURS)}
"""Colours of figures and of `figures.mplstyle` -> their variables in `style.css`."""
_PREDICTED = "#22d3ee"
_WIDTH = 1120
"""Width of heat maps and bars in CSS pixels, which is the width of a section."""
_MAX_NAME_LENGTH = 42
"""Largest number of characters of a row's name. Longer names are cut."""
_SHORTEST = 0.003
"""Smallest length of a bar, as a share of the axis, so that it stays visible."""
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_TIP = "tip:"  # prefix of the element ids that become tooltips
# Characters that XML does not allow.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    xs: Sequence[float] | np.ndarray
    ys: Sequence[float] | np.ndarray
    colour: str
    dots: bool = False
    """Whether each point is marked. A mark shows its values as a tooltip."""
    dashed: bool = False


def line_chart(
    title: str, lines: Sequence[Line], x_title: str, *, legend: bool = True
) -> str:
    """Returns an SVG of lines. The x axis has integers.

    Args:
        title: title for screen readers. The page shows it next to the figure.
        lines: the lines.
        x_title: label of the x axis.
        legend: whether the names of the lines are shown above them.
    """
    with style.context(_STYLE):
        figure, axes = _figure(360, 215)
        for line in lines:
            dashes = "--" if line.dashed else "-"
            axes.plot(line.xs, line.ys, dashes, color=line.colour, label=line.name)
            if not line.dots:
                continue
            for x, y in zip(line.xs, line.ys, strict=True):
                (dot,) = axes.plot(x, y, "o", color=line.colour)
                _set_tip(dot, f"{line.name}: {y:.5g} at {x:,.6g}")
        axes.locator_params(axis="x", nbins=5, integer=True)
        axes.locator_params(axis="y", nbins=5)
        axes.xaxis.set_major_formatter("{x:,.6g}")
        axes.yaxis.set_major_formatter("{x:,.6g}")
        axes.margins(x=0.02, y=0.08)
        axes.grid(axis="y")
        axes.set_xlabel(x_title)
        if legend:
            figure.legend(loc="outside upper left", ncols=len(lines))
        return _svg(figure, title)


def heat_maps(
    labels: Sequence[str],
    alignment: Alignment,
    *,
    title: str,
    truth: Sequence[tuple[float, float] | None],
) -> str:
    """Returns an SVG of two matrices of sentences by seconds, cosines and transport plan.

    A bar at the bottom of each row shows the predicted time, an outline the true time.

    Args:
        labels: the sentences.
        alignment: the cosines, the transport plan, and the predicted times.
        title: title for screen readers. The page shows it next to the figure.
        truth: start and end in seconds of each sentence; None if they are not known.
    """
    num_rows, seconds = alignment.plan.shape
    with style.context(_STYLE):
        height = 22 * num_rows + 70
        figure, (left, right) = _figure(_WIDTH, height, columns=2)
        for axes, name, values, colours in (
            (left, "cosine", alignment.similarity, "viridis"),
            (right, "transport plan", alignment.plan, "Reds"),
        ):
            _draw_matrix(axes, values, colours)
            _outline_true_times(axes, truth, seconds)
            _draw_predicted_times(axes, alignment.spans, seconds)
            axes.set(
                title=name, xlabel="seconds", xlim=(0, seconds), ylim=(num_rows, 0)
            )
            axes.set_yticks([])
        _name_rows(left, np.arange(num_rows) + 0.5, labels)
        return _svg(figure, title)


def _draw_matrix(axes: Axes, values: np.ndarray, colours: str) -> None:
    """Draws a matrix of sentences by seconds, with a bar of its colours."""
    num_rows, seconds = values.shape
    image = axes.imshow(
        values,
        cmap=colours,
        aspect="auto",
        interpolation="none",
        extent=(0, seconds, num_rows, 0),
    )
    colour_bar = axes.figure.colorbar(image, ax=axes, aspect=40, pad=0.01)
    colour_bar.outline.set_visible(False)


def _draw_predicted_times(
    axes: Axes, spans: Sequence[tuple[float, float]], seconds: int
) -> None:
    """Draws a bar for each predicted time at the bottom of its row."""
    starts, ends = np.transpose(spans)
    lengths = np.maximum(ends - starts, _SHORTEST * seconds)
    axes.barh(
        np.arange(len(spans)) + 0.86,
        lengths,
        0.2,
        starts,
        color=_PREDICTED,
        edgecolor="black",
        linewidth=0.5,
    )


def _outline_true_times(
    axes: Axes, truth: Sequence[tuple[float, float] | None], seconds: int
) -> None:
    """Outlines the true times in white and black, which is visible on any colour."""
    for row, span in enumerate(truth):
        if span is None:
            continue
        start_s, end_s = span
        length = max(end_s - start_s, _SHORTEST * seconds)
        corner = start_s, row + 0.07
        outline = Rectangle(corner, length, 0.86, fill=False, edgecolor="white")
        outline.set_path_effects([withStroke(linewidth=2.4, foreground="black")])
        axes.add_patch(outline)


class Bar(NamedTuple):
    """A coloured interval of time."""

    start_s: float
    end_s: float
    colour: str
    label: str
    """Text of the tooltip."""


def bars(title: str, rows: Sequence[tuple[str, Sequence[Bar]]], end_s: float) -> str:
    """Returns an SVG of rows of coloured bars over time.

    Args:
        title: title for screen readers.
        rows: the name and the bars of each row, from the top.
        end_s: end of the time axis in seconds.
    """
    with style.context(_STYLE):
        num_rows = len(rows)
        figure, axes = _figure(_WIDTH, 24 * num_rows + 24)
        axes.barh(range(num_rows), end_s, color=GRID)
        for row, (_, row_bars) in enumerate(rows):
            for bar in row_bars:
                length = max(bar.end_s - bar.start_s, _SHORTEST * end_s)
                (drawn,) = axes.barh(row, length, left=bar.start_s, color=bar.colour)
                times = f"{bar.start_s:g} to {bar.end_s:g} s"
                _set_tip(drawn, f"{bar.label}, {times}")
        names = [name for name, _ in rows]
        _name_rows(axes, range(num_rows), names)
        axes.locator_params(axis="x", nbins=8, integer=True)
        axes.xaxis.set_major_formatter("{x:g} s")
        axes.set(xlim=(0, end_s), ylim=(num_rows - 0.5, -0.5))
        return _svg(figure, title)


def _figure(width: int, height: int, columns: int = 1) -> tuple[Figure, Any]:
    """Returns a figure and its axes. The size is in CSS pixels, 96 per inch."""
    figure = Figure((width / 96, height / 96))
    return figure, figure.subplots(1, columns)


def _name_rows(
    axes: Axes, positions: Sequence[float] | np.ndarray, names: Sequence[str]
) -> None:
    """Writes the names of rows, each on one line. A tooltip shows a name that is cut."""
    axes.set_yticks(positions, [_shorten(name) for name in names])
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        _set_tip(label, name)
        label.set(color=INK)


def _shorten(name: str) -> str:
    """Returns a name on one line, without characters that XML forbids, cut to a length."""
    line = _NOT_XML.sub("?", " ".join(name.split()))
    if len(line) <= _MAX_NAME_LENGTH:
        return line
    beginning = line[: _MAX_NAME_LENGTH - 1].rstrip()
    return f"{beginning}…"


def _set_tip(artist: Artist, text: str) -> None:
    """Gives an artist a tooltip. `_svg` turns its id into an SVG title, which browsers show."""
    artist.set_gid(_TIP + _NOT_XML.sub("?", text))


def themed(colour: str) -> str:
    """Returns a colour in CSS: a variable of the theme if it has one, else the colour itself."""
    name = _THEME.get(colour)
    return f"var({name}, {colour})" if name else colour


def _svg(figure: Figure, title: str) -> str:
    """Returns a figure as an `<svg>` element of a page.

    Colours of the theme become variables. Tooltips become titles. Other ids are removed, because
    two figures of a page may have the same.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        # matplotlib's font lacks many characters, but the browser's fonts have them.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    root = ElementTree.fromstring(buffer.getvalue())
    for group in root.iter(f"{{{_SVG}}}g"):
        name = group.attrib.pop("id", "")
        if name.startswith(_TIP):
            tip = ElementTree.Element(f"{{{_SVG}}}title")
            tip.text = name.removeprefix(_TIP)
            group.insert(0, tip)
    for element in root.iter():
        for colour in _THEME:
            css = element.get("style", "")
            if colour in css:
                element.set("style", css.replace(colour, themed(colour)))
    root.attrib |= {"role": "img", "aria-label": title}
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")
