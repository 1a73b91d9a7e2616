"""The plausible range of every figure of the check, and the likely cause of a value outside it.

The ranges hold HowTo100M as released and leave room for other narrated videos. HowTo100M has 1.2
million videos of 6.5 minutes on average, with 110 automatic captions each, of 4 s and 4 words, that
overlap by up to a half; de-duplicated or made into sentences, they are fewer and longer. Its
features are one row of S3D a second, divided by its length.

An error is kept for data from which nothing can be learnt, whatever the features or captions are.
What is wrong in a part of the videos is a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from mmpt.prepare.check.statistics import SPAN, SplitStatistics

Severity = Literal["warning", "error"]
WARNING: Severity = "warning"
ERROR: Severity = "error"
LONG, SHORT = 1.15, 0.6  # from first to last caption, in lengths of the video

FEW = "most captions, or their ends, are probably missing"
ENDS = "ends of single captions are probably wrong, as 99:59:59 for a caption without an end"
SHIFTED = (
    "caption times are probably shifted (subtract the time code of the first picture, often one "
    "hour) or of another speed, ends are wrong, or features were cut off"
)
UNITS = (("milliseconds", 1000), ("microseconds", 1_000_000))


def cause_of_times(statistics: SplitStatistics, otherwise: str = FEW) -> str:
    """Returns why captions and videos differ in length or place, by the factor between them.

    Args:
        otherwise: the cause where they do not differ.
    """
    spans = statistics.tallies[SPAN]
    long, short = spans.share(np.log10(LONG), np.inf), spans.share(-np.inf, np.log10(SHORT))
    if statistics.outside > 0.1 * statistics.captions:
        otherwise = SHIFTED
    if short > long:
        if statistics.captions < 3 * statistics.videos:
            return otherwise
        factor = 10 ** -(spans.median(high=np.log10(SHORT)) or 0.0)
        if factor > 15:
            return (
                f"{_where(short)}feature rows are probably one per frame, and one a second is "
                f"expected; or caption times are of another unit, about {factor:,.0f} times too "
                "small"
            )
        if short > 0.8:
            return (
                f"feature rows are probably {factor:.1f} a second, and one a second is expected; "
                "or captions are only of a part of the videos"
            )
    return cause_of_long_times(statistics, otherwise)


def cause_of_long_times(statistics: SplitStatistics, otherwise: str = ENDS) -> str:
    """Returns why captions are longer than their videos; `otherwise` if hardly any are."""
    spans = statistics.tallies[SPAN]
    long = spans.share(np.log10(LONG), np.inf)
    if long < 0.02:
        return otherwise
    times = f"{_where(long)}caption times are"
    factor = 10 ** (spans.median(low=np.log10(LONG)) or 0.0)
    for unit, size in UNITS:
        if size / 2 <= factor <= size * 2:
            return f"{times} probably {unit}: divide them by {size}"
    if 20 <= factor <= 80:
        return (
            f"{times} about {factor:.0f} times too large: probably frames (divide them by the "
            "frame rate), or minutes that were read as hours (divide them by 60)"
        )
    if factor > 5:
        return (
            f"{times} about {float(f'{factor:.2g}'):,.0f} times too large: probably of another "
            "unit (they must be seconds), or single times are wrong"
        )
    if long > 0.8:
        return (
            f"feature rows are probably {factor:.1f} s apart, or features were cut off: one row a "
            "second is expected"
        )
    if long > 0.1:
        return (
            "captions are probably of other videos than features: compare the ids; or features or "
            "captions were cut off"
        )
    return otherwise


def _where(share: float) -> str:
    """Returns how a cause begins that holds for a share of the videos."""
    return "" if share > 0.8 else f"in {100 * share:.0f} % of the videos, "


cause_of_place = partial(cause_of_times, otherwise=SHIFTED)
EARLY = (
    "caption times of these videos are probably minutes or shares of the video, and must be "
    "seconds; or feature rows are one per frame; or most captions are missing"
)
LIST = "the lists were probably joined from lists that overlap"
IDS = "captions are probably of other videos: compare the ids of captions and lists"
COPIES = "one file was probably used for several videos, or videos are in the corpus twice"
SAME = "one text was probably given to all captions of a video, or to all videos"
TEXTS = "texts are probably missing, or are not strings"
RATE = "feature rows are probably not one a second, or videos were cut into clips or joined"
SWAPPED = "starts and ends are probably swapped, or ends are durations"
WORDS = "captions are probably single words (join them to sentences), or ends are missing"
PARAGRAPHS = "captions are probably whole paragraphs: cut them into sentences"
SCROLLING = (
    "captions probably scroll and repeat each other (de-duplicate them with `mmpt dedup`), are "
    "single words, or are several tracks in one file"
)
LANGUAGE = (
    "texts are probably of another language or encoding than the vocabulary of `dataset.bert_name`"
)
LONG_TEXTS = f"captions are probably long sentences or paragraphs: cut them; or {LANGUAGE}"
SCALE = (
    "features are probably not those of S3D; or rows were not divided by their length (`mmpt "
    "extract --l2_normalize 1`), were scaled twice, or are [512, seconds] that was reshaped and "
    "not transposed"
)
ZEROS = "videos were probably padded, or could not be decoded"
CONSTANT = (
    "the network probably has wrong weights, or narrower features were filled up with constants"
)
COLLAPSED = (
    "all feature rows are nearly the same: the network probably has wrong weights, or its pictures "
    "were black or not scaled"
)
BROKEN = (
    "numbers above 65,504 probably overflowed float16, or files are damaged: extract these videos "
    "again"
)


class Range(NamedTuple):
    """The plausible values of a figure, bounds included, and why a value is outside them."""

    figure: str
    low: float | None  # None: no bound
    high: float | None
    severity: Severity
    cause: str | Callable[[SplitStatistics], str]


# An error stands before the warning of its figure; shares are in percent.
RANGES = (
    Range("listed videos: repeated lines", None, 5, WARNING, LIST),
    Range("listed videos: also in the other list", None, 1, WARNING, LIST),
    Range("videos: without captions", None, 99, ERROR, IDS),
    Range("videos: without captions", None, 25, WARNING, IDS),
    Range("videos: shorter than their captions", None, 2, WARNING, cause_of_long_times),
    Range("videos: captions end in the first tenth", None, 5, WARNING, EARLY),
    Range("videos: with captions of another", None, 20, WARNING, COPIES),
    Range("videos: with features of another", None, 20, WARNING, COPIES),
    Range("seconds of a video", 5, 7200, WARNING, RATE),
    Range("captions: per minute", 1, None, WARNING, cause_of_times),
    Range("captions: per minute", None, 40, WARNING, SCROLLING),
    Range("captions: without a word", None, 90, ERROR, TEXTS),
    Range("captions: without a word", None, 5, WARNING, TEXTS),
    Range("captions: equal to another", None, 99.99, ERROR, SAME),
    Range("captions: equal to another", None, 99, WARNING, SAME),
    Range("captions: end before they start", None, 50, ERROR, SWAPPED),
    Range("captions: end before they start", None, 1, WARNING, SWAPPED),
    Range("captions: without length", None, 5, WARNING, "ends are probably missing or rounded"),
    Range("captions: start before their video", None, 1, WARNING, cause_of_place),
    Range("captions: start after their video", None, 5, WARNING, cause_of_place),
    Range("captions: outside the video", None, 95, ERROR, cause_of_place),
    Range("captions: outside the video", None, 5, WARNING, cause_of_place),
    Range("captions: out of order", None, 5, WARNING, "captions were probably not sorted by start"),
    Range("seconds of a caption", 0.1, None, ERROR, partial(cause_of_times, otherwise=WORDS)),
    Range("seconds of a caption", 0.5, None, WARNING, partial(cause_of_times, otherwise=WORDS)),
    Range("seconds of a caption", None, 30, WARNING, partial(cause_of_times, otherwise=PARAGRAPHS)),
    Range("tokens: of a caption", 2, None, WARNING, WORDS),
    Range("tokens: of a caption", None, 25, WARNING, LONG_TEXTS),
    Range("tokens: unknown ([UNK])", None, 50, ERROR, LANGUAGE),
    Range("tokens: unknown ([UNK])", None, 5, WARNING, LANGUAGE),
    Range("tokens: inside a word", None, 30, WARNING, LANGUAGE),
    Range("first to last caption, of the video", None, 500, ERROR, cause_of_times),
    Range("first to last caption, of the video", 60, 115, WARNING, cause_of_times),
    Range("video time with captions", 0.1, None, ERROR, cause_of_times),
    Range("video time with captions", 10, None, WARNING, cause_of_times),
    Range("caption time on other captions", None, 60, WARNING, SCROLLING),
    Range("length of a feature row", 0.98, 1.02, WARNING, SCALE),
    Range("length of the mean feature row", None, 0.97, WARNING, COLLAPSED),
    Range("feature rows: not of length 1", None, 1, WARNING, SCALE),
    Range("feature rows: of zeros", None, 90, ERROR, ZEROS),
    Range("feature rows: of zeros", None, 1, WARNING, ZEROS),
    Range(
        "feature rows: equal to the one before",
        None,
        30,
        WARNING,
        "rows were probably repeated to get one a second, or videos are still pictures",
    ),
    Range("constant feature columns", None, 99.99, ERROR, CONSTANT),
    Range("constant feature columns", None, 1, WARNING, CONSTANT),
    Range("feature numbers: NaN", None, 0, ERROR, BROKEN),
    Range("feature numbers: infinite", None, 0, ERROR, BROKEN),
)


class Finding(NamedTuple):
    """A figure outside its plausible range."""

    severity: Severity
    split: str
    figure: str
    value: str
    plausible: str
    cause: str


def full_names(titles: Iterable[str]) -> dict[str, str]:
    """Returns the names of a table's figures by title; an indented title belongs to the last one
    that is not, as in `videos: without captions`.
    """
    names, head = {}, ""
    for title in titles:
        head = head if title[0] == " " else title
        names[title] = title if title == head else f"{head}: {title.strip()}"
    return names


def plausible_text(figure: str, unit: str) -> str:
    """Returns the range of a figure without a warning, for people; empty if every value is."""
    ranges = [one for one in RANGES if one.figure == figure]
    low = max((one.low for one in ranges if one.low is not None), default=None)
    high = min((one.high for one in ranges if one.high is not None), default=None)
    if low is not None and high is not None:
        return f"{low:,} to {high:,}{unit}"
    if high is not None:
        return f"at most {high:,}{unit}" if high else "0"
    return "" if low is None else f"at least {low:,}{unit}"


def find_implausible(split: str, statistics: SplitStatistics) -> list[Finding]:
    """Returns the figures of a split that are outside their ranges, with the likely causes."""
    found: dict[str, Finding] = {}
    rows = statistics.rows()
    figures = {name: rows[title] for title, name in full_names(rows).items()}
    for name, low, high, severity, cause in RANGES:
        text, value, unit = figures[name]
        if value is None or name in found:
            continue
        if (low is not None and value < low) or (high is not None and value > high):
            why = cause if isinstance(cause, str) else cause(statistics)
            found[name] = Finding(severity, split, name, text, plausible_text(name, unit), why)
    return list(found.values())


def describe(findings: Iterable[Finding]) -> list[str]:
    """Returns a text per cause: the cause, and below it the figures that show it."""
    by_cause: dict[str, list[str]] = {}
    for _, split, figure, value, plausible, cause in findings:
        line = f"\n    {split}: {figure}: {value} (plausible: {plausible})"
        by_cause.setdefault(cause, []).append(line)
    return [f"{cause}{''.join(lines)}" for cause, lines in by_cause.items()]
