"""The plausible range of every statistic, and the likely cause of a value outside it.

The ranges contain HowTo100M as released and leave room for other narrated videos. HowTo100M has 1.2
million videos of 6.5 minutes on average. Each has about 110 automatic captions of 4 s and 4 words,
which overlap by up to a half. De-duplicated captions and sentences are fewer and longer. Each
feature row is divided by its L2 norm.

A value is an error if nothing can be learnt from the data, and a warning if a part of the videos is
wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from mmpt.prepare.check.statistics import SPAN, SplitStatistics

# Time from first to last caption, divided by the length of the video.
LONG, SHORT = 1.15, 0.6

FEW = "most captions, or their ends, are probably missing"
ENDS = "ends of some captions are probably wrong, such as 99:59:59 for a caption without an end"
SHIFTED = (
    "caption times are probably shifted (subtract the time code of the first frame, often one "
    "hour) or run at another speed, ends are wrong, or features were cut off"
)
EARLY = (
    "caption times are probably minutes or shares of the video, and must be seconds; or there are "
    "more feature rows per second than `dataset.feature_fps`; or most captions are missing"
)
LIST = "the lists were probably joined from lists that overlap"
IDS = "captions probably belong to other videos: compare the ids of captions and lists"
COPIES = (
    "one file was probably used for several videos, or videos are in the corpus twice"
)
SAME = "one text was probably given to all captions of a video, or to all videos"
TEXTS = "texts are probably missing, or are not strings"
RATE = (
    "feature rows probably have another rate than `dataset.feature_fps`, or videos were cut into "
    "clips or joined"
)
SWAPPED = "starts and ends are probably swapped, or ends are durations"
WORDS = (
    "captions are probably single words (join them to sentences), or ends are missing"
)
PARAGRAPHS = "captions are probably whole paragraphs: cut them into sentences"
SCROLLING = (
    "captions probably scroll and repeat each other (de-duplicate them with `mmpt dedup`), are "
    "single words, or are several tracks in one file"
)
LANGUAGE = (
    "texts are probably in another language or encoding than the vocabulary of "
    "`dataset.bert_name`"
)
LONG_TEXTS = (
    f"captions are probably long sentences or paragraphs: cut them; or {LANGUAGE}"
)
SCALE = (
    "rows were probably not divided by their L2 norm (`mmpt extract --l2_normalize 1`, or `mmpt "
    "prepare` and `mmpt pack` with `--l2-normalize`), were scaled twice, or are [width, rows] that "
    "was reshaped and not transposed"
)
ZEROS = "videos were probably padded, or could not be decoded"
STILL = (
    "rows were probably repeated to get more per second, or videos are still pictures"
)
CONSTANT = "the network probably has wrong weights, or narrower features were padded with constants"
COLLAPSED = (
    "all feature rows are nearly the same: the network probably has wrong weights, or its frames "
    "were black or not scaled"
)
BROKEN = (
    "numbers above 65,504 probably overflowed float16, or files are damaged: extract these videos "
    "again"
)
FRAMES = "frames (divide them by the frame rate), or minutes read as hours (divide them by 60)"
UNITS = (
    (500, 2000, "milliseconds: divide them by 1000"),
    (500_000, 2_000_000, "microseconds: divide them by 1000000"),
    (20, 80, FRAMES),
    (5, np.inf, "of another unit (they must be seconds), or single times are wrong"),
)
"""(lowest factor, highest factor, probable unit) of caption times that are too large by a factor in
this range. The first match counts.
"""


class Range(NamedTuple):
    """The plausible range of a statistic."""

    figure: str
    """Title of the statistic in the table."""
    cause: str
    """Likely cause of a value outside the range."""
    low: float = -np.inf
    high: float = np.inf
    error_low: float = -np.inf
    """A smaller value is an error, because training would be useless."""
    error_high: float = np.inf
    """A larger value is an error, because training would be useless."""
    is_time: bool = False
    """If `diagnose_times` finds a cause, it replaces `cause`."""


# Shares are in percent.
RANGES = (
    Range("listed videos: repeated lines", LIST, high=5),
    Range("listed videos: also in the other list", LIST, high=1),
    Range("videos: without captions", IDS, high=25, error_high=99),
    Range("videos: shorter than their captions", ENDS, high=2, is_time=True),
    Range("videos: captions end in the first tenth", EARLY, high=5),
    Range("videos: with captions of another", COPIES, high=20),
    Range("videos: with features of another", COPIES, high=20),
    Range("seconds of a video", RATE, 5, 7200),
    Range("captions: per minute", FEW, low=1, is_time=True),
    Range("captions: per minute", SCROLLING, high=40),
    Range("captions: without a word", TEXTS, high=5, error_high=90),
    Range("captions: equal to another", SAME, high=99, error_high=99.99),
    Range("captions: end before they start", SWAPPED, high=1, error_high=50),
    Range("captions: without length", "ends are probably missing or rounded", high=5),
    Range(
        "captions: start outside the video",
        SHIFTED,
        high=2,
        error_high=95,
        is_time=True,
    ),
    Range(
        "captions: out of order", "captions were probably not sorted by start", high=5
    ),
    Range("seconds of a caption", WORDS, low=0.5, error_low=0.1, is_time=True),
    Range("seconds of a caption", PARAGRAPHS, high=30, is_time=True),
    Range("tokens: of a caption", WORDS, low=2),
    Range("tokens: of a caption", LONG_TEXTS, high=25),
    Range("tokens: unknown ([UNK])", LANGUAGE, high=5, error_high=50),
    Range("tokens: inside a word", LANGUAGE, high=30),
    Range(
        "first to last caption, of the video",
        FEW,
        60,
        115,
        error_high=500,
        is_time=True,
    ),
    Range("video time with captions", FEW, low=10, error_low=0.1, is_time=True),
    Range("caption time on other captions", SCROLLING, high=60),
    Range("norm of a feature row", SCALE, 0.98, 1.02),
    Range("norm of the mean feature row", COLLAPSED, high=0.97),
    Range("feature rows: norm is not 1", SCALE, high=1),
    Range("feature rows: of zeros", ZEROS, high=1, error_high=90),
    Range("feature rows: equal to the one before", STILL, high=30),
    Range("feature rows: NaN or infinite numbers", BROKEN, high=0, error_high=0),
    Range("constant feature columns", CONSTANT, high=1, error_high=99.99),
)

ROW_NORMS = ("norm of a feature row", "feature rows: norm is not 1")
"""Statistics that say nothing about features that are not normalised."""


class Finding(NamedTuple):
    """A statistic outside its plausible range."""

    severity: Literal["warning", "error"]
    split: str
    figure: str
    """Title of the statistic in the table."""
    value: str
    plausible: str
    """The plausible range, as shown."""
    cause: str
    """Likely cause."""


def diagnose_times(statistics: SplitStatistics) -> str | None:
    """Returns the likely reason why caption times do not fit the videos; None if there is none.

    It looks at the time from the first to the last caption of a video, divided by the length of the
    video. In a sound corpus, this ratio is near 1 for most videos. The share of videos with smaller
    or larger ratios, and their median ratio, decide on the reason.
    """
    spans = statistics.tallies[SPAN]
    short_share, log_short = spans.share_and_median(high=np.log10(SHORT))
    long_share, log_long = spans.share_and_median(low=np.log10(LONG))
    # Captions span too little of the videos. Videos with very few captions do not count.
    has_enough_captions = statistics.captions >= 3 * statistics.videos
    if short_share > long_share and has_enough_captions:
        factor = 10**-log_short
        if factor > 15:
            return EARLY
        if short_share > 0.8:
            return (
                f"feature rows are probably {factor:.1f} times as many as `dataset.feature_fps` "
                "says; or captions are only of a part of the videos"
            )
    # Captions span more than the videos. A known factor points to the unit of the times.
    factor = 10**log_long
    where = ""
    if long_share <= 0.8:
        where = f"in {100 * long_share:.0f} % of the videos, "
    for low, high, unit in UNITS:
        if long_share >= 0.02 and low <= factor <= high:
            rounded = float(f"{factor:.2g}")
            return f"{where}caption times are about {rounded:,.0f} times too large, probably {unit}"
    if long_share > 0.8:
        return (
            f"feature rows are probably {factor:.1f} times as far apart as `dataset.feature_fps` "
            "says, or features were cut off"
        )
    if long_share > 0.1:
        return (
            "captions and features are probably of different videos: compare the ids; or features "
            "or captions were cut off"
        )
    # The lengths fit, so times may be shifted.
    num_outside = statistics.negative + statistics.late
    if num_outside > 0.1 * statistics.captions:
        return SHIFTED
    return None


def plausible_text(figure: str, unit: str) -> str:
    """Returns the plausible range of a statistic as a text; empty if it has no range.

    Args:
        figure: title of the statistic.
        unit: its unit.
    """
    # A statistic may have one range with a lower and another with an upper bound.
    low, high = -np.inf, np.inf
    for plausible in RANGES:
        if plausible.figure == figure:
            low = max(low, plausible.low)
            high = min(high, plausible.high)
    has_low = low > -np.inf
    has_high = high < np.inf
    if has_low and has_high:
        return f"{low:,} to {high:,}{unit}"
    if has_high:
        return f"at most {high:,}{unit}"
    if has_low:
        return f"at least {low:,}{unit}"
    return ""


def find_implausible(split: str, statistics: SplitStatistics) -> list[Finding]:
    """Returns the statistics of a split that are outside their ranges, with the likely causes."""
    found = []
    rows = statistics.rows()
    for plausible in RANGES:
        figure = plausible.figure
        text, value, unit = rows[figure]
        if value is None or plausible.low <= value <= plausible.high:
            continue
        severity: Literal["warning", "error"] = "error"
        if plausible.error_low <= value <= plausible.error_high:
            severity = "warning"
        cause = plausible.cause
        if plausible.is_time:
            cause = diagnose_times(statistics) or cause
        bounds = plausible_text(figure, unit)
        found.append(Finding(severity, split, figure, text, bounds, cause))
    return found


def describe(findings: Iterable[Finding]) -> list[str]:
    """Returns one text per cause: the cause, and below it the statistics that point to it."""
    texts: dict[str, str] = {}  # cause -> text
    for _, split, figure, value, plausible, cause in findings:
        line = f"\n    {split}: {figure}: {value} (plausible: {plausible})"
        texts[cause] = texts.get(cause, cause) + line
    return list(texts.values())
