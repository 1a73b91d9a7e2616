"""Tests of reading the captions of one video in all formats, intact and damaged."""

import json

import numpy as np
import pytest

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import clean_times
from mmpt.prepare.captions.reader import read_captions

WRITTEN = """WEBVTT - made by hand

STYLE
::cue { color: red }

NOTE a comment
with two lines

intro
01:02.500 --> 01:04.000 line:90%
<v Anna>Yes.</v>

01:04.000 --> 01:05.000
Yes.

1:00:00.000 --> 1:00:01.250
<i>Two</i>
lines --&gt; here
"""
SUBRIP = (
    "1\n00:00:01,500 --> 00:00:03,000\n{\\an8}<i>First</i>\n"
    "line\n\n2\n00:00:03,000 --> 00:00:04,000\nSecond\n"
)


CLEAN = {"start": [0, 1.0, 1.0], "end": [9.0, 2.0, 1.0], "text": ["a", "b", "c"]}


def read(tmp_path, name: str, content: str | bytes):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_captions(path)[0]


def test_repeated_sentences_of_manual_subtitles_are_kept(tmp_path):
    assert read(tmp_path, "a.vtt", WRITTEN) == {
        "start": [62.5, 64.0, 3600.0],
        "end": [64.0, 65.0, 3601.25],
        "text": ["Yes.", "Yes.", "Two lines --> here"],
    }


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_subrip_is_read_in_all_encodings(tmp_path, newline, encoding):
    content = (
        SUBRIP.replace("Second", "Zweite Käse 中")
        .replace("\n", newline)
        .encode(encoding)
    )
    assert read(tmp_path, "a.srt", content) == {
        "start": [1.5, 3.0],
        "end": [3.0, 4.0],
        "text": ["First line", "Zweite Käse 中"],
    }


def test_json_of_whisperx_is_read(tmp_path):
    segments = [
        {
            "start": 5.0,
            "end": 7.5,
            "text": " and then",
            "words": [{"word": "and", "start": 5.0}],
        },
        {"start": 1.25, "end": 4.0, "text": " First of all,\n stir."},
        {"start": 8.0, "end": 9.0, "text": "  "},
        {"text": "no times"},
    ]
    found = read(
        tmp_path, "a.json", json.dumps({"segments": segments, "language": "en"})
    )
    assert found == {
        "start": [1.25, 5.0],
        "end": [4.0, 7.5],
        "text": ["First of all, stir.", "and then"],
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.vtt", "WEBVTT\n"), ("a.srt", ""), ("a.json", '{"segments": []}')],
)
def test_a_file_without_captions_is_not_an_error(tmp_path, name, content):
    assert read(tmp_path, name, content) == {"start": [], "end": [], "text": []}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.vtt",
            "WEBVTT\n\n00:01 --> soon\nx\n",
            "line 3 must read like `00:00:01.000 --> ",
        ),
        ("a.srt", "just text\n", "must hold subtitles with lines like"),
        (
            "a.srt",
            SUBRIP.encode() + b"caf\xe9",
            rf"byte {len(SUBRIP) + 3} is 0xe9, .*iconv",
        ),
        ("a.srt", SUBRIP.encode() + b"caf\xc3", rf"byte {len(SUBRIP) + 3} is 0xc3"),
        ("a.json", '{"segments": [', "not valid JSON"),
        ("a.json", '{"segments": ["x"]}', "`segments` must be a list of objects"),
        ("a.json", '{"start": [0], "end": [1]}', r"lengths are \[1, 1, None\]"),
        ("a.json", '{"start": [0, 1], "end": [1], "text": ["x"]}', r"are \[2, 1, 1\]"),
        (
            "a.json",
            '{"start": ["0:1"], "end": [1], "text": ["x"]}',
            "numbers .* but one is '0:1'",
        ),
        (
            "a.json",
            '{"v": {"start": [], "end": [], "text": []}}',
            "captions must be three lists",
        ),
        (
            "a.json",
            f'{{"start": [{"9" * 5000}], "end": [1], "text": ["x"]}}',
            "not valid JSON",
        ),
    ],
)
def test_the_error_for_a_broken_file_names_the_problem(
    tmp_path, name, content, message
):
    with pytest.raises(DataError, match=rf"{name}.*{message}"):
        read(tmp_path, name, content)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"x\.vtt: no such file"):
        read_captions(tmp_path / "x.vtt")


def test_notes_count_corrected_times_and_dropped_texts(tmp_path):
    columns = {
        "start": [-1.0, 9.0, 3.0, float("nan"), 10.0, 11.0],
        "end": [2.0, 8.0, 5.0, 1.0, 11.0, 12.0],
        "text": ["a", "b", "c", "d", None, " "],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(columns))
    found, notes = read_captions(path)
    assert found == {
        "start": [0.0, 3.0, 9.0],
        "end": [2.0, 5.0, 9.0],
        "text": ["a", "c", "b"],
    }
    assert notes == [
        "1 captions whose text is not a string (dropped)",
        "captions 1 out of order (sorted), 1 before second 0 (clamped), 1 ending before their "
        "start (clamped), 1 without a time (dropped)",
    ]


@pytest.mark.parametrize("seed", range(20))
def test_cleaned_times_equal_a_simple_version(seed):
    rng = np.random.default_rng(seed)
    start, end = rng.normal(5, 5, size=(2, 12)).round(1)
    start[rng.random(12) < 0.1] = np.nan
    end[rng.random(12) < 0.1] = np.inf
    captions = {
        "start": start.tolist(),
        "end": end.tolist(),
        "text": list("abcdefghijkl"),
    }
    found, flaws = clean_times(captions, "x")
    rows = []
    counts = dict.fromkeys(("untimed", "negative", "reversed", "unsorted"), 0)
    previous = float("-inf")
    for start_s, end_s, text in zip(*captions.values(), strict=True):
        if not np.isfinite([start_s, end_s]).all():
            counts["untimed"] += 1
            continue
        counts["negative"] += min(start_s, end_s) < 0
        counts["reversed"] += end_s < start_s
        counts["unsorted"] += start_s < previous
        previous = start_s
        begin = max(start_s, 0.0)
        rows.append((begin, max(end_s, begin), text))
    rows.sort(key=lambda row: row[0])
    assert flaws == counts
    assert list(zip(*found.values(), strict=True)) == rows


def test_clean_captions_are_not_changed(tmp_path):
    found, flaws = clean_times(CLEAN, "x")
    assert found is CLEAN
    assert not flaws.total()
    assert read(tmp_path, "a.json", json.dumps(CLEAN)) == CLEAN
