"""Means, standard errors and paired differences of the results, as Markdown tables."""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from experiments.arms import Arm, Run
from experiments.corpora import Corpus

Row = Mapping[str, Any]
BySeed = dict[int, Row]
"""Seed -> row of the results."""


class Number(NamedTuple):
    """A number of the tables."""

    title: str
    metric: str
    key: str
    scale: float = 100.0
    """Factor from the metric to the number in the tables. Default: percent."""

    def of(self, row: Row) -> float:
        """Returns the number of a run."""
        return self.scale * float(row["metrics"][self.metric][self.key])


CLIP = Number("clip R@1", "RetrievalMetric", "R1")
DTW = Number("DTW", "FullVideoRetrievalMetric", "DTW-R1")
DTW_CALIBRATED = Number("DTW, calibrated", "Calibrated", "DTW-R1")
AVERAGE = Number("caption average", "FullVideoRetrievalMetric", "R1")
AVERAGE_BG = Number("background: caption average", "FullVideoBGRetrievalMetric", "R1")
DTW_BG = Number("background: DTW", "FullVideoBGRetrievalMetric", "DTW-R1")
DTW_BG_CALIBRATED = Number("background: DTW, calibrated", "CalibratedBG", "DTW-R1")
AUC = Number("alignment AUC", "How2AlignMetric", "AUC")
MAIN = (CLIP, AVERAGE, DTW, DTW_CALIBRATED, AVERAGE_BG, DTW_BG_CALIBRATED, AUC)
"""Columns of the tables that the page shows. Scores of whole videos are R@1."""
OTHER = (
    Number("clip R@5", "RetrievalMetric", "R5"),
    Number("OTAM", "FullVideoRetrievalMetric", "OTAM-R1"),
    Number("OT", "FullVideoRetrievalMetric", "OT-R1"),
    DTW_BG,
    Number("background: OTAM", "FullVideoBGRetrievalMetric", "OTAM-R1"),
    Number("background: OT", "FullVideoBGRetrievalMetric", "OT-R1"),
)
"""Columns of the tables that the page shows on a click."""
DTW_CONSTANTS: tuple[Number, ...] = (
    DTW._replace(title="R@1, c = 0"),
    DTW_CALIBRATED._replace(title="R@1, calibrated c"),
    Number("calibrated c", "Calibrated", "DTW-constant", scale=1.0),
    DTW_BG._replace(title="background: R@1, c = 3"),
    DTW_BG_CALIBRATED._replace(title="background: R@1, calibrated c"),
    Number("background: calibrated c", "CalibratedBG", "DTW-constant", scale=1.0),
)
"""Columns of the table about the constant in DTW's distances, without and with background: R@1 with
the constant of the release, R@1 with the calibrated constant, and this constant."""


class Estimate(NamedTuple):
    """A mean over seeds, and its standard error, which is NaN for a single seed."""

    mean: float
    error: float
    num_seeds: int

    def text(self, *, signed: bool = False) -> str:
        """Returns the estimate with one decimal, such as `12.3 ± 0.4`."""
        mean = f"{self.mean:+.1f}" if signed else f"{self.mean:.1f}"
        return mean if math.isnan(self.error) else f"{mean} ± {self.error:.1f}"


def estimate(values: Sequence[float]) -> Estimate:
    """Returns the mean of values and its standard error."""
    error = math.nan
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(statistics.fmean(values), error, len(values))


def gain(number: Number, rows: BySeed, others: BySeed) -> Estimate | None:
    """Returns the mean difference rows - others over the common seeds; None if there are none.

    The difference is taken seed by seed, because the two runs of a pair share the corpus and the
    VideoCLIP checkpoint.
    """
    seeds = paired_seeds(rows, others)
    if not seeds:
        return None
    return estimate([number.of(rows[seed]) - number.of(others[seed]) for seed in seeds])


def paired_seeds(rows: BySeed, others: BySeed) -> list[int]:
    """Returns the seeds for which both arms have a run from the same checkpoint."""
    common = sorted(rows.keys() & others.keys())
    return [seed for seed in common if have_same_start(rows[seed], others[seed])]


def have_same_start(one: Row, other: Row) -> bool:
    """Returns whether two runs with the same seed started from the same checkpoint.

    Old rows do not have its hash. The same seed on the same kind of processor gives the same
    checkpoint. Another processor rounds differently.
    """
    hashes = (one.get("start"), other.get("start"))
    if None in hashes:
        return bool(one["machine"] == other["machine"])
    return hashes[0] == hashes[1]


def rows_of(arm: Arm, corpus: Corpus, results: Iterable[Row]) -> BySeed:
    """Returns the results of an arm in an experiment on `corpus`, by seed."""
    key = Run.of(arm, corpus, 0).arm_key
    return {row["seed"]: row for row in results if row["arm"] == key}


def tables(
    arms: Sequence[Arm], by_arm: Mapping[str, BySeed], numbers: Sequence[Number]
) -> str:
    """Returns a table of the means and a table of the paired gains of arms, as Markdown.

    Args:
        by_arm: name of an arm -> its results.
        numbers: the columns.
    """
    lines = []
    for arm in arms:
        if not arm.against:
            continue
        gains = [gain(each, by_arm[arm.name], by_arm[arm.against]) for each in numbers]
        cells = [each.text(signed=True) for each in gains if each]
        if cells:
            paired = paired_seeds(by_arm[arm.name], by_arm[arm.against])
            note = seeds_note(paired, by_arm)
            lines.append([f"{arm.title}, against {arm.against}{note}", *cells])
    parts = [means_table("mean", numbers, arms, by_arm), _table("gain", numbers, lines)]
    return "\n\n".join(part for part in parts if part)


def means_table(
    title: str,
    numbers: Sequence[Number],
    arms: Sequence[Arm],
    by_arm: Mapping[str, BySeed],
) -> str:
    """Returns a table of the means of some numbers, as Markdown.

    Args:
        by_arm: name of an arm -> its results.
    """
    lines = []
    for arm in arms:
        if rows := by_arm[arm.name]:
            cells = [arm.title + seeds_note(rows, by_arm)]
            for number in numbers:
                values = [number.of(row) for row in rows.values()]
                cells.append(estimate(values).text())
            lines.append(cells)
    return _table(title, numbers, lines)


def seeds_note(seeds: Collection[int], by_arm: Mapping[str, BySeed]) -> str:
    """Returns the seeds of a row in brackets, or an empty text if they are all seeds of the table.

    Each seed has its own corpus, so means over different seeds cannot be compared.
    """
    known = set(chain.from_iterable(by_arm.values()))
    if set(seeds) == known:
        return ""
    numbers = ", ".join(map(str, sorted(seeds)))
    return f" (seed {numbers})" if len(seeds) == 1 else f" (seeds {numbers})"


def _table(
    title: str, numbers: Sequence[Number], lines: Sequence[Sequence[str]]
) -> str:
    """Returns a Markdown table, or an empty text if it has no lines."""
    if not lines:
        return ""
    header = [title, *(number.title for number in numbers)]
    rule = ["---", *["---:"] * len(numbers)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))
