"""Tests of damaged subtitles: no text is lost, and every repair is reported with its line."""

import pytest

from mmpt.errors import DataError
from mmpt.prepare.captions.reader import read_captions
from mmpt.prepare.captions.subtitles import parse_subtitles


def srt(*entries: str) -> str:
    """Returns a SubRip file whose entries are one second long."""
    texts = []
    for place, text in enumerate(entries):
        times = f"00:00:0{place},000 --> 00:00:0{place + 1},000"
        texts.append(f"{place + 1}\n{times}\n{text}\n")
    return "\n".join(texts)


THREE = srt("wash the rice", "boil the water", "add the salt")
VTT = "WEBVTT\nLanguage: en\n\n00:01.000 --> 00:02.000\nwash the rice\n"
WASH = ["wash the rice", "boil the water", "add the salt"]
NO_EMPTY = "entry without an empty line before it accepted"
KEPT = "text after an empty line kept"
BEFORE = "text before the first caption ignored"


@pytest.mark.parametrize(
    ("text", "captions", "repairs"),
    [
        (THREE, WASH, {}),
        # Empty lines: none at all, one within a text, two instead of one.
        (THREE.replace("\n\n", "\n"), WASH, {NO_EMPTY: [4, 7]}),
        (THREE.replace("rice", "rice\n\nin cold water"), ["wash the rice in cold water", *WASH[1:]],
         {KEPT: [5]}),
        (THREE.replace("\n", "\n\n"), WASH, {}),
        (VTT + "00:03.000 --> 00:04.000\nstir\n", ["wash the rice", "stir"], {NO_EMPTY: [6]}),
        (VTT + "\nin cold water\n", ["wash the rice in cold water"], {KEPT: [7]}),
        # Numbers: within the text, missing, or of a truncated entry.
        (srt("3", "2\n\n7", "1"), ["3", "2 7", "1"], {KEPT: [9]}),
        (srt("3", "2").replace("1\n", "", 1).replace("2\n", "", 1), ["3", "2"], {}),
        (srt("a", "", "b"), ["a", "b"], {}),
        (THREE + "\n4\n", WASH, {"number without a caption ignored": [13]}),
        (THREE.replace("1\n", "", 1).replace("\n\n", "\n"), WASH, {NO_EMPTY: [3, 6]}),
        (srt("3", "2", "1\n\n42"), ["3", "2", "1 42"], {KEPT: [13]}),
        # Arrows.
        (THREE.replace("-->", "->", 1), WASH, {"`->` read as `-->`": [2]}),
        (THREE.replace("-->", "--&gt;"), WASH, {"`--&gt;` read as `-->`": [2, 6, 10]}),
        (THREE.replace("-->", "\u2013>", 1), WASH, {"`\u2013>` read as `-->`": [2]}),
        (srt("raw --> cooked", "x\n1:30 -> 2:00"), ["raw --> cooked", "x 1:30 -> 2:00"], {}),
        (THREE.replace(",000", ""), WASH, {}),
        (THREE.replace(":0", ": 0"), WASH, {}),
        # Text in a timing line.
        (THREE.replace("03,000\n", "03,000 "), WASH, {"text in a timing line kept": [10]}),
        (VTT.replace("02.000", "02.000 align:start position:0%"), WASH[:1], {}),
        # Markup, and text that looks like it.
        (srt("if x < 5 and y > 3"), ["if x < 5 and y > 3"], {}),
        (srt("x<y and y>z, <3"), ["x<y and y>z, <3"], {}),
        (srt('<i>a</i><br>b <font color="red">c</font>{\\an8} <v Bo>d</v> &lt;e&gt; &amp;'),
         ["a b c d <e> &"], {}),
        (srt("a < b\\Nc<strike>d</strike>", "e\x1a"), ["a < b cd", "e"], {}),
        # Text that does not belong to a caption.
        ("Translated by me\n\n" + THREE, WASH, {BEFORE: [1]}),
        (VTT.replace("00:01", "NOTE no caption\nmore of it\n\nintro\n00:01", 1), WASH[:1], {}),
        (VTT.replace("00:01", "lost text\n\n00:01", 1), WASH[:1], {BEFORE: [4]}),
        (VTT + "\nNOTE no --> caption\n\nSTYLE\n::cue {}\n", WASH[:1], {}),
        (VTT + "\n" + VTT, WASH[:1] * 2, {}),
        (VTT.replace("wash", "\nboil\n00:03.000 --> 00:04.000\nwash"), ["boil", WASH[0]],
         {NO_EMPTY: [7]}),
    ],
)  # fmt: skip
def test_nothing_is_lost_silently(text, captions, repairs):
    found, found_repairs = parse_subtitles(text, "x")
    assert found["text"] == captions
    assert found_repairs == repairs


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (THREE.replace("00:00:01,000 -->", "00:00:01,000 -> soon"), 6),
        (THREE.replace("--> 00:00:02,000", "--> 00:00:xx"), 6),
        (THREE.replace("00:00:01,000 -->", "00:00:01;000 =>"), 6),
        (VTT.replace("--> 00:02.000", "-->"), 4),
        (THREE.replace("00:00:01,000 -->", "00:00:01,000 --"), 6),
        (THREE.replace("00:00:00,000", "9" * 50 + ":00:00,000"), 2),
        (THREE.replace("\n\n", "\n").replace("00:00:01,000 -->", "0:0:1:0 ->"), 5),
    ],
)
def test_a_broken_timing_line_is_an_error(text, line):
    with pytest.raises(
        DataError, match=f"^x: line {line} must read like `00:00:01.000 --> "
    ):
        parse_subtitles(text, "x")


def test_notes_contain_line_numbers(tmp_path):
    path = tmp_path / "a.srt"
    path.write_text(THREE.replace("\n\n", "\n") * 3)
    captions, notes = read_captions(path)
    assert len(captions["text"]) == 9
    lines = "lines 4, 7, 10, 13, 16 and 3 more"
    assert notes[0] == f"entry without an empty line before it accepted ({lines})"
    assert notes[1] == "captions 2 out of order (sorted)"
