"""Tests of scrolling subtitles: generated speech is shown as scrolling text and read again.

Every sentence must be read exactly once, with its times.
"""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.prepare.captions.subtitles import parse_subtitles

HOLD_S = 0.01
SENTENCES = (
    "peel the onion and cut it in half",
    "stir it",
    "[Music]",
    "now slice it thin with a sharp knife",
    "put the pan on the stove now",
    "stir until the onion is brown",
    "2 cups",
)

# The form of YouTube's automatic subtitles: lines scroll up, and every word has a time.
YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.389 align:start position:0%
[space]
hello<00:00:00.480><c> guys</c><00:00:00.800><c> &amp;</c><00:00:01.200><c> girls</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello guys &amp; girls
[space]

00:00:02.399 --> 00:00:04.100 align:start position:0%
hello guys &amp; girls
welcome<00:00:02.560><c> back</c>

00:00:04.100 --> 00:00:04.110 align:start position:0%
welcome back
[space]

00:00:04.110 --> 00:00:06.000 align:start position:0%
welcome back
back<00:00:04.500><c> to</c><00:00:05.000><c> baking</c>
""".replace("[space]", " ")  # editors would remove the line with one space


@dataclass(frozen=True)
class Said:
    """One sentence of a speech."""

    start: float  # seconds
    end: float
    text: str


@st.composite
def speech(draw: st.DrawFn) -> list[Said]:
    """Draws sentences with pauses between some of them. Many sentences are repeated."""
    said: list[Said] = []
    now = draw(st.sampled_from([0.0, 0.5, 3599.0]))
    for _ in range(draw(st.integers(1, 12))):
        text = draw(st.sampled_from(SENTENCES))
        num_words = len(text.split())
        seconds_per_word = draw(st.sampled_from([0.2, 0.3, 0.45]))
        duration = max(0.5, seconds_per_word * num_words)
        end = round(now + duration, 3)
        said.append(Said(now, end, text))
        pause = draw(st.sampled_from([0, 0, 0, 0.1, 0.7, 6, 80]))
        now = round(end + pause, 3)
    return said


def clock(seconds: float, separator: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, fraction = divmod(milliseconds, 1000)
    return f"{hours:02}:{minutes:02}:{whole:02}{separator}{fraction:03}"


def write(cues: list[tuple[float, float, str]], is_vtt: bool) -> str:
    """Returns the content of a subtitle file with cues (start, end, text)."""
    separator = "." if is_vtt else ","
    entries = []
    if is_vtt:
        entries.append("WEBVTT\nKind: captions\nLanguage: en\n")
    for number, (start, end, text) in enumerate(cues, start=1):
        times = f"{clock(start, separator)} --> {clock(end, separator)}"
        if is_vtt:
            entries.append(f"{times}\n{text}\n")
        else:
            entries.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(entries)


def with_word_times(one: Said, end: float) -> str:
    """Returns a text with word times as in YouTube's files. The first word has none."""
    first, *others = one.text.split()
    step = (end - one.start) / (1 + len(others))
    timed = first
    for place, word in enumerate(others, start=1):
        time = clock(one.start + place * step, ".")
        timed += f"<{time}><c> {word}</c>"
    return timed


def scroll(
    said: list[Said], num_lines: int, style: str, hold: str, clears: bool
) -> str:
    """Returns a subtitle file that scrolls.

    Args:
        said: the sentences.
        num_lines: number of lines that are shown at the same time.
        style: `youtube` has word times and lines of blanks, `stripped` has word times and empty
            lines. `vtt` and `srt` have neither.
        hold: the lines of a hold cue: `last`, `rest` (all lines that stay), or `none` (there are no
            hold cues).
        clears: no old line is shown after a pause.
    """
    is_timed = style in ("youtube", "stripped")
    blank = []
    if is_timed and num_lines > 1:
        blank = ["" if style == "stripped" else " "]
    num_old = num_lines - 1
    window: list[str] = []  # the lines that are shown
    cues = []
    last_end = 0.0
    for one in said:
        if clears and one.start > last_end:
            window = []
        last_end = one.end
        old = window[-num_old:] if num_old else []
        window = [*old, one.text]
        end = one.end if hold == "none" else round(one.end - HOLD_S, 3)
        new = with_word_times(one, end) if is_timed else one.text
        lines = [*(old or blank), new]
        cues.append((one.start, end, "\n".join(lines)))
        if hold == "none":
            continue
        num_stay = 1 if hold == "last" else max(1, num_old)
        lines = [*window[-num_stay:], *blank]
        cues.append((end, one.end, "\n".join(lines)))
    return write(cues, is_vtt=style != "srt")


def assert_said(said: list[Said], text: str) -> None:
    """Checks that every sentence is one caption, within 20 ms of its times, without repairs."""
    found, repairs = parse_subtitles(text, "x")
    assert found["text"] == [one.text for one in said]
    assert found["start"] == pytest.approx([one.start for one in said], abs=0.02)
    assert found["end"] == pytest.approx([one.end for one in said], abs=0.02)
    assert not repairs


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=400)
@given(
    speech(),
    st.integers(1, 4),
    st.sampled_from(["youtube", "stripped", "vtt", "srt"]),
    st.sampled_from(["last", "rest"]),
    st.booleans(),
)
def test_scrolling_speech_is_read_once(said, num_lines, style, hold, clears):
    assert_said(said, scroll(said, num_lines, style, hold, clears))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    speech(), st.integers(1, 4), st.sampled_from(["youtube", "stripped", "vtt", "srt"])
)
def test_scrolling_speech_without_hold_cues_is_read_once(said, num_lines, style):
    assert_said(said, scroll(said, num_lines, style, "none", clears=True))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=200)
@given(speech(), st.booleans(), st.booleans())
def test_subtitles_that_do_not_scroll_are_not_changed(said, is_vtt, has_two_lines):
    cues = []
    for one in said:
        text = one.text.replace(" the ", "\nthe ") if has_two_lines else one.text
        cues.append((one.start, one.end, text))
    assert_said(said, write(cues, is_vtt))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    speech(),
    st.sampled_from(
        [("<u>", "</u>"), ('<font color="#00ff00">', "</font>"), ("<b>", "</b>")]
    ),
    st.booleans(),
    st.booleans(),
)
def test_text_with_highlighted_words_is_read_once(said, tags, has_gaps, is_vtt):
    cues = []
    for one in said:
        words = one.text.split()
        step = (one.end - one.start) / len(words)
        for place, word in enumerate(words):
            start = one.start + place * step
            end = start + step
            marked = words.copy()
            marked[place] = f"{tags[0]}{word}{tags[1]}"
            text = " ".join(marked)
            is_last = place + 1 == len(words)
            if has_gaps and not is_last:
                # There is silence after two thirds of the word. Then nothing is highlighted.
                silent_from = start + step * (2 / 3)
                cues.append((start, silent_from, text))
                cues.append((silent_from, end, one.text))
            else:
                cues.append((start, end, text))
    assert_said(said, write(cues, is_vtt))


def test_a_file_from_youtube():
    found, repairs = parse_subtitles(YOUTUBE, "x")
    assert found == {
        "start": [0.16, 2.399, 4.11],
        "end": [2.399, 4.11, 6.0],
        "text": ["hello guys & girls", "welcome back", "back to baking"],
    }
    assert not repairs


def test_dialogs_that_look_like_scrolling_are_not_changed():
    texts = [
        "Where were you?",
        "Out.",
        "Stop!",
        "Stop!\nPlease, stop it.",
        "No.",
        "Why?",
    ]
    cues = []
    said = []
    for place, text in enumerate(texts):
        start = 2.0 * place
        cues.append((start, start + 2, text))
        said.append(Said(start, start + 2, text.replace("\n", " ")))
    assert_said(said, write(cues, is_vtt=False))


def test_a_sentence_that_is_repeated_after_a_hold_cue_is_kept():
    said = [Said(0.5, 1.0, "so we add the salt"), Said(1.0, 1.5, "so we add the salt")]
    assert_said(said, scroll(said, 1, "srt", "last", clears=True))


def test_hold_cues_may_be_long():
    shown = ["a b", "a b", "a b\nc d", "c d", "c d\nd e", "d e"]
    cues = [(start, start + 1, text) for start, text in enumerate(shown)]
    said = [Said(0, 2, "a b"), Said(2, 4, "c d"), Said(4, 6, "d e")]
    assert_said(said, write(cues, is_vtt=False))


def test_line_breaks_may_be_missing():
    cues = [
        (0, 1.9, "a b c"),
        (1.9, 2, "a b c"),
        (2, 3.9, "a b c d e"),
        (3.9, 4, "d e"),
        (4, 5.9, "d e f g h"),
        (5.9, 6, "f g h"),
    ]
    said = [Said(0, 2, "a b c"), Said(2, 4, "d e"), Said(4, 6, "f g h")]
    assert_said(said, write(cues, is_vtt=False))


def test_a_text_that_is_repeated_after_a_pause_is_kept():
    said = [Said(start, start + 4.0, "[Music]") for start in (60.0, 120.0, 300.0)]
    assert_said(said, scroll(said, 2, "youtube", "last", clears=True))
