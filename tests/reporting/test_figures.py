"""Tests that figures show their values at the right positions, read from the SVG and its images."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colormaps, rc_context, rcParams
from PIL import Image

from mmpt.inference.alignment import Alignment
from mmpt.reporting.figures import Bar, Line, bars, heat_maps, line_chart

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "$\\frac{",
    "<script>alert(1)</script>",
    "\x00\x1b half \ud83d",
    "二つの 文",
    "two\nlines",
]


def paths(svg: str, colour: str) -> list[np.ndarray]:
    """Returns the points of every path that is drawn or filled in a colour."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        if colour in path.get("style", ""):
            numbers = re.findall(r"-?[\d.]+", path.attrib["d"])
            found.append(np.array(numbers, dtype=float).reshape(-1, 2))
    return found


def images(svg: str) -> list[np.ndarray]:
    """Returns the pixels of every image, uint8 [height, width, 4]."""
    found = []
    for image in ElementTree.fromstring(svg).iter(f"{SVG}image"):
        _, _, encoded = image.attrib["{http://www.w3.org/1999/xlink}href"].partition(
            ","
        )
        file = io.BytesIO(base64.b64decode(encoded))
        found.append(np.array(Image.open(file).convert("RGBA")))
    return found


def extent(points: np.ndarray) -> tuple[float, float]:
    """Returns the left edge and the width of a path."""
    return points[:, 0].min(), np.ptp(points[:, 0])


def titles(svg: str) -> list[str | None]:
    return [title.text for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]


def texts(svg: str) -> list[str | None]:
    return [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_straight_line_is_drawn_straight_and_upwards() -> None:
    line = Line("a<b", [0, 1, 2, 4], [0, 10, 20, 40], "#123456", dots=True)
    svg = line_chart("t & t", [line], "steps")
    curve = max(paths(svg, "stroke: #123456"), key=lambda points: np.ptp(points[:, 0]))
    runs, rises = np.diff(curve, axis=0).T
    slopes = rises / runs
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-4)  # measured 1e-6
    assert slopes[0] < 0  # y increases downwards in SVG
    assert titles(svg) == [
        "a<b: 0 at 0",
        "a<b: 10 at 1",
        "a<b: 20 at 2",
        "a<b: 40 at 4",
    ]
    assert {"steps", "a<b"} <= set(texts(svg))
    assert ElementTree.fromstring(svg).attrib["aria-label"] == "t & t"


def test_long_curves_are_simplified_and_keep_their_extremes() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    values[777], values[-1] = 200, 100
    svg = line_chart("t", [Line("a", range(100_000), values, "#123456")], "x")
    curve = max(paths(svg, "#123456"), key=len)
    assert 300 < len(curve) < 2000
    heights = curve[:, 1].max() - curve[:, 1]
    assert heights.max() == pytest.approx(2 * heights[-1], rel=0.05)


def aligned(values: np.ndarray, spans: list[tuple[int, int]]) -> Alignment:
    return Alignment(
        plan=np.zeros_like(values),
        spans=spans,
        scores=np.zeros(len(values)),
        similarity=values,
    )


def test_a_heat_map_shows_all_values_and_marks_the_times() -> None:
    values = np.array([[0.0, 0.5, 1.0], [0.2, 1.0, 0.0]])
    found = aligned(values, [(0, 1), (2, 3)])
    svg = heat_maps(["one", "two"], found, title="t", truth=[(1, 3), None])
    pixels, _ = [
        picture for picture in images(svg) if picture.shape[:2] == values.shape
    ]
    expected = 255 * colormaps["viridis"](values)
    np.testing.assert_allclose(pixels, expected, atol=1)
    outline, *_ = paths(svg, "stroke: #ffffff")
    first, second, *_ = paths(svg, "fill: #22d3ee")
    left, width = extent(outline)
    start, length = extent(first)
    assert width == pytest.approx(2 * length, rel=1e-3)  # 2 s and 1 s
    assert left == pytest.approx(start + length, rel=1e-3)
    second_start, _ = extent(second)
    assert second_start == pytest.approx(start + 2 * length, rel=1e-3)


def test_the_lengths_of_bars_are_proportional_to_their_durations() -> None:
    row = [
        Bar(0, 10, "#aaaaaa", "x"),
        Bar(10, 40, "#bbbbbb", "<y>"),
        Bar(40, 40, "#cccccc", "z"),
    ]
    svg = bars("t", [("a", row)], 100)
    drawn = []
    for bar in row:
        (path,) = paths(svg, f"fill: {bar.colour}")
        drawn.append(extent(path))
    (short_start, short_width), (long_start, long_width), (_, no_width) = drawn
    assert long_width == pytest.approx(3 * short_width, rel=1e-4)
    assert long_start == pytest.approx(short_start + short_width, rel=1e-4)
    assert no_width > 1  # the bar is visible
    assert titles(svg) == ["a", "x, 0 to 10 s", "<y>, 10 to 40 s", "z, 40 to 40 s"]


def test_special_characters_are_shown_as_text_on_one_line() -> None:
    found = aligned(np.zeros((len(HOSTILE), 3)), [(0, 1)] * len(HOSTILE))
    maps = heat_maps(HOSTILE, found, title=HOSTILE[1], truth=[None] * len(HOSTILE))
    rows = [(text, [Bar(0, 1, "#aaaaaa", text)]) for text in HOSTILE]
    for svg in (maps, bars(HOSTILE[1], rows, 2)):
        assert "<script" not in svg
        assert {HOSTILE[0], HOSTILE[1], "?? half ?", "二つの 文", "two lines"} <= set(
            texts(svg)
        )


def test_long_names_are_cut_and_have_tooltips() -> None:
    name = "a very long name " * 9
    svg = bars("t", [(name, [])], 2)
    assert titles(svg) == [name]
    (label,) = (text for text in texts(svg) if text and text.startswith("a very"))
    assert len(label) <= 42
    assert label.endswith("…")


def test_figures_do_not_depend_on_the_settings_of_the_user() -> None:
    line = Line("a", [1, 2], [3, 4], "#123456", dots=True)
    first = line_chart("t", [line], "x")
    with rc_context({"lines.linewidth": 9, "svg.fonttype": "path", "axes.grid": True}):
        assert line_chart("t", [line], "x") == first
        assert rcParams["lines.linewidth"] == 9
