"""What is drawn stands where its values say; pixels of heat maps are read back from the picture itself."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mmpt.reporting.charts import VIRIDIS, Bar, Line, Panel, _ticks, bars, heat_maps, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_a_straight_line_is_straight_and_ends_at_the_edges() -> None:
    line = Line(name="a<b", xs=[0, 1, 2, 3, 4], ys=[0, 10, float("nan"), 30, 40], colour="#123456", dots=True)
    root = parsed(line_chart("t & t", [line], "x", size=(400, 300)))
    way = root.find(f"{SVG}polyline")
    assert way is not None
    points = np.array([[float(value) for value in pair.split(",")] for pair in way.attrib["points"].split()])
    assert len(points) == 4  # not the one that is no number
    slopes = np.diff(points[:, 1]) / np.diff(points[:, 0])
    np.testing.assert_allclose(slopes, slopes[0], atol=0.02)  # measured 0.004: coordinates have one decimal
    assert slopes[0] < 0  # up
    assert 40 < points[0, 0] < points[-1, 0] < 400
    assert [dot.findtext(f"{SVG}title") for dot in root.findall(f"{SVG}circle")][-1] == "a<b: 40 at 4"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 17), (0.0712, 0.0731), (1e6, 3e6), (149.2, 150.1)])
def test_ticks_are_round_within_the_range_and_few(low: float, high: float) -> None:
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert low <= ticks[0] < ticks[-1] <= high
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6)


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    line = Line(name="loss", xs=range(10_000), ys=range(10_000), colour="#000000")
    way = re.search(r'points="([^"]+)"', line_chart("t", [line], "x"))
    assert way is not None
    assert 300 < len(way[1].split()) <= 400
    short = re.search(
        r'points="([^"]+)"', line_chart("t", [Line(name="", xs=[0, 9_999], ys=[0, 9_999], colour="#0")], "x")
    )
    assert short is not None
    assert way[1].split()[-1] == short[1].split()[-1]


def test_a_heat_map_shows_every_value_and_greys_what_is_missing() -> None:
    values = np.array([[0.0, 0.5, 1.0], [np.nan, 1.0, 0.0]])
    svg = heat_maps(
        ["one", "two"], [Panel("p", values, VIRIDIS)], title="t", truth=[(1, 3), None], found=[(0, 1), (2, 3)]
    )
    image = parsed(svg).find(f"{SVG}image")
    assert image is not None
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(image.attrib["href"].partition(",")[2]))))
    assert pixels.shape == (2, 3, 3)
    colours = {pixels[row, column].tobytes().hex() for row, column in ((0, 0), (1, 2))}
    assert colours == {VIRIDIS[0][1:]}
    assert pixels[0, 2].tobytes().hex() == VIRIDIS[-1][1:]
    assert len(set(pixels[1, 0])) == 1  # grey
    outline = next(rect for rect in parsed(svg).iter(f"{SVG}rect") if rect.attrib["fill"] == "none")
    width, left = (float(image.attrib[name]) for name in ("width", "x"))
    assert float(outline.attrib["x"]) == pytest.approx(left + width / 3, abs=0.1)
    assert float(outline.attrib["width"]) == pytest.approx(width * 2 / 3, abs=0.1)


def test_bars_are_as_long_as_their_time() -> None:
    svg = bars("t", [("a", [Bar(0, 10, "#aaaaaa", "x"), Bar(10, 40, "#bbbbbb", "<y>")])], 40)
    by_colour = {rect.attrib["fill"]: rect for rect in parsed(svg).iter(f"{SVG}rect")}
    short, long = (float(by_colour[colour].attrib["width"]) for colour in ("#aaaaaa", "#bbbbbb"))
    assert long == pytest.approx(3 * short, abs=0.3)  # coordinates have one decimal
    assert by_colour["#bbbbbb"].findtext(f"{SVG}title") == "<y>, 10 to 40 s"
