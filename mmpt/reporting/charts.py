"""Charts as inline SVG, written by hand: lines, heat maps of sentences by seconds, and bars along a video's time."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmpt.reporting.markup import escape, shorten

INK, SOFT, GRID = "#1f2933", "#616e7c", "#e4e9ef"
COLOURS = ("#2563eb", "#d97706", "#15803d", "#9333ea", "#0891b2", "#be123c")
GREY = "#8b98a7"
_MOST_POINTS = 400


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    dots: bool = False
    """Mark each point, which then tells its values."""


def line_chart(
    title: str, lines: Sequence[Line], x_title: str, *, size: tuple[int, int] = (360, 230), log_x: bool = False
) -> str:
    """Return an SVG with one panel; values that are not finite are left out.

    Args:
        size: width and height in pixels.
        log_x: logarithmic x, for values from 1 on.
    """
    kept = [(line, points) for line in lines if (points := _points(line))]
    assert kept, "a chart needs a value"
    (width, height), (left, top, right, bottom) = size, (52, 46, 12, 36)
    xs = [x for _, points in kept for x, _ in points]
    ys = [y for _, points in kept for _, y in points]
    x_low, x_high = _widened(min(xs), max(xs), 0.0)
    y_low, y_high = _widened(min(ys), max(ys), 0.06)

    def x_of(x: float) -> float:
        share = math.log(x / x_low) / math.log(x_high / x_low) if log_x else (x - x_low) / (x_high - x_low)
        return left + share * (width - left - right)

    def y_of(y: float) -> float:
        return height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom)

    parts = [_text(left - 40, 15, title, weight=600, size=13)]
    for y in _ticks(y_low, y_high):
        parts.append(f'<path d="M{left} {y_of(y):.1f}H{width - right}" stroke="{GRID}"/>')
        parts.append(_text(left - 6, y_of(y) + 4, f"{y:.6g}", anchor="end", colour=SOFT))
    for x in _decades(x_low, x_high) if log_x else _ticks(x_low, x_high):
        parts.append(_text(x_of(x), height - bottom + 15, f"{x:,.6g}", anchor="middle", colour=SOFT))
    parts.append(_text((left + width - right) / 2, height - 4, x_title, anchor="middle", colour=SOFT))
    at = left - 40
    for line, points in kept:
        drawn = [(x_of(x), y_of(y)) for x, y in points]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{line.colour}" stroke-width="1.8"/>')
        if line.dots:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"><title>{escape(line.name)}: '
                f"{value[1]:.5g} at {value[0]:,.6g}</title></circle>"
                for (x, y), value in zip(drawn, points, strict=True)
            ]
        parts.append(f'<path d="M{at} 29h14" stroke="{line.colour}" stroke-width="3"/>')
        parts.append(_text(at + 19, 33, line.name, colour=SOFT))
        at += 34 + round(6.4 * len(line.name))
    return _svg(width, height, title, parts)


class Panel(NamedTuple):
    """A matrix of a heat map."""

    title: str
    values: np.ndarray
    """float [S, L]; NaN where there is none."""
    palette: Sequence[str]


VIRIDIS = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")
WHITE_TO_RED = ("#ffffff", "#fde0d2", "#fcae91", "#fb6a4a", "#cb181d", "#67000d")


def heat_maps(
    labels: Sequence[str],
    panels: Sequence[Panel],
    *,
    title: str,
    truth: Sequence[tuple[float, float] | None],
    found: Sequence[tuple[float, float]],
) -> str:
    """Return matrices of sentences by seconds side by side, with times marked.

    Args:
        labels: the sentences [S].
        panels: each its own range of colours.
        truth: start and end in seconds of each sentence, where known: outlined.
        found: likewise what the model says: a bar at the foot of the row.
    """
    row, top, label_width, gap, width = 22, 34, 310, 24, 1120
    num_rows, seconds = panels[0].values.shape
    panel_width = (width - label_width - gap * (len(panels) + 1)) / len(panels)
    height = top + row * num_rows + 34
    parts = [
        _text(0, top + row * (place + 0.68), shorten(label, 46), size=12.5, hover=label)
        for place, label in enumerate(labels)
    ]
    for number, panel in enumerate(panels):
        left = label_width + gap + number * (panel_width + gap)
        scale = panel_width / seconds
        low, high = _range(panel.values)
        parts.append(_text(left, top - 9, f"{panel.title} ({low:.2g} to {high:.2g})", weight=600))
        parts.append(
            f'<image x="{left:.1f}" y="{top}" width="{panel_width:.1f}" height="{row * num_rows}" '
            f'preserveAspectRatio="none" style="image-rendering:pixelated" href="{_picture(panel, low, high)}"/>'
        )
        for place, (span, guess) in enumerate(zip(truth, found, strict=True)):
            y = top + row * place
            if span is not None:
                at = f'{_along(span, left, scale)} y="{y + 1.5}" height="{row - 3}"'
                parts.append(f'<rect {at} fill="none" stroke="#000" stroke-width="2.6"/>')
                parts.append(f'<rect {at} fill="none" stroke="#fff" stroke-width="1.2"/>')
            at = f'{_along(guess, left, scale)} y="{y + row - 5}" height="4"'
            parts.append(f'<rect {at} fill="#22d3ee" stroke="#000" stroke-width="0.6"/>')
        for second in _ticks(0, seconds):
            parts.append(_text(left + second * scale, height - 18, f"{second:g}", anchor="middle", colour=SOFT))
        parts.append(_text(left + panel_width / 2, height - 3, "seconds", anchor="middle", colour=SOFT))
    return _svg(width, height, title, parts)


def _along(span: tuple[float, float], left: float, scale: float) -> str:
    """Return x and width of a stretch of seconds, which is seen however short it is."""
    return f'x="{left + span[0] * scale:.1f}" width="{max((span[1] - span[0]) * scale, 2):.1f}"'


class Bar(NamedTuple):
    """A stretch of time in a row of bars."""

    start_s: float
    end_s: float
    colour: str
    label: str
    """What it is; told when pointed at."""


def bars(title: str, rows: Sequence[tuple[str, Sequence[Bar]]], end_s: float) -> str:
    """Return rows of coloured bars over time.

    Args:
        rows: a name and its bars, from the top.
        end_s: where the time axis ends.
    """
    row, width = 24, 1120
    label_width = min(300, 20 + round(7.2 * max(len(name) for name, _ in rows)))
    scale = (width - label_width - 14) / end_s
    height = row * len(rows) + 22
    parts = []
    for place, (name, row_bars) in enumerate(rows):
        parts.append(_text(0, row * place + 16, shorten(name, 38), size=13, hover=name))
        x = label_width
        parts.append(
            f'<rect x="{x}" y="{row * place + 2}" width="{end_s * scale:.1f}" height="{row - 5}" fill="{GRID}"/>'
        )
        parts += [
            f'<rect x="{label_width + bar.start_s * scale:.1f}" y="{row * place + 2}" height="{row - 5}" '
            f'width="{max((bar.end_s - bar.start_s) * scale, 3):.1f}" fill="{bar.colour}">'
            f"<title>{escape(bar.label)}, {bar.start_s:g} to {bar.end_s:g} s</title></rect>"
            for bar in row_bars
        ]
    for second in _ticks(0, end_s, 8):
        parts.append(_text(label_width + second * scale, height - 5, f"{second:g} s", anchor="middle", colour=SOFT))
    return _svg(width, height, title, parts)


def image_uri(pixels: np.ndarray, kind: str = "PNG", **options: int) -> str:
    """Return uint8 [height, width, 3] as a `data:` address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _picture(panel: Panel, low: float, high: float) -> str:
    """Return one pixel per value, grey where there is none."""
    anchors = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in panel.palette], dtype=float)
    share = np.clip((panel.values - low) / max(high - low, 1e-12), 0, 1)
    known = np.isfinite(share)
    at = np.where(known, share, 0) * (len(anchors) - 1)
    pixels = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)], axis=-1)
    pixels[~known] = 225
    return image_uri(pixels.round().astype(np.uint8))


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _points(line: Line) -> list[tuple[float, float]]:
    """Return at most `_MOST_POINTS` finite points, evenly chosen, the last one always."""
    points = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    step = -(-len(points) // _MOST_POINTS) or 1
    return points[::-1][::step][::-1]


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    if low == high:
        return (low - (abs(low) * 0.5 or 1), high + (abs(high) * 0.5 or 1))
    return low - share * (high - low), high + share * (high - low)


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers in [low, high], at most about `most`."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [
        round(step * number, 10) for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK, size: float = 12, weight: int = 400,
    hover: str = "",
) -> str:  # fmt: skip
    tip = f"<title>{escape(hover)}</title>" if hover else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}" '
        f'font-weight="{weight}">{tip}{escape(text)}</text>'
    )


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
