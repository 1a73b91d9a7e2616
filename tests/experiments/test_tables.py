"""Means, errors and gains against NumPy, and the lines of tables."""

import math

import numpy as np
import pytest

from experiments.arms import Arm, Run
from experiments.corpora import HALF_ALIGNED, HOWTO100M
from experiments.tables import (
    CLIP,
    MAIN,
    Number,
    estimate,
    gain,
    rows_of,
    tables,
)

HALF = Number("half", "A", "R1")


def row(value: float, seed: int = 0, arm: str = "") -> dict:
    metrics: dict[str, dict[str, float]] = {}
    for number in MAIN:
        metrics.setdefault(number.metric, {})[number.key] = value
    return {
        "seed": seed,
        "arm": arm,
        "metrics": {**metrics, "A": {"R1": value}},
        "machine": "M",
    }


def by_seed(values: dict[int, float]) -> dict[int, dict]:
    return {seed: row(value, seed) for seed, value in values.items()}


def test_the_mean_and_its_error_equal_numpy() -> None:
    values = [1.5, 2.0, 4.5, 3.0, 2.25]
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.error == pytest.approx(np.std(values, ddof=1) / np.sqrt(5))
    assert found.text(signed=True) == "+2.6 ± 0.5"


def test_a_single_value_has_no_error() -> None:
    assert math.isnan(estimate([2.0]).error)
    assert estimate([2.0]).text() == "2.0"


def test_a_gain_is_paired_by_seed() -> None:
    rows = by_seed({0: 0.5, 1: 0.75, 2: 0.5, 7: 0.9})
    others = by_seed({2: 0.375, 1: 0.5, 0: 0.25, 9: 0.1})
    found = gain(HALF, rows, others)
    differences = np.array([25.0, 25.0, 12.5])  # seeds 0, 1 and 2, in percent
    assert found is not None
    assert found.num_seeds == 3
    assert found.mean == pytest.approx(differences.mean())
    assert found.error == pytest.approx(differences.std(ddof=1) / np.sqrt(3))


def test_there_is_no_gain_without_a_common_seed() -> None:
    assert gain(HALF, by_seed({0: 0.5}), by_seed({1: 0.5})) is None
    assert gain(HALF, {}, by_seed({1: 0.5})) is None


@pytest.mark.parametrize(
    ("one", "other", "is_pair"),
    [
        ({"start": "a"}, {"start": "a", "machine": "N"}, True),
        ({"start": "a"}, {"start": "b"}, False),
        # Old rows have no hash of the checkpoint.
        ({"start": "a"}, {}, True),
        ({"start": "a"}, {"machine": "N"}, False),
        ({}, {"machine": "N"}, False),
        ({}, {}, True),
    ],
)
def test_paired_runs_start_from_the_same_checkpoint(
    one: dict[str, str], other: dict[str, str], is_pair: bool
) -> None:
    rows, others = {3: row(0.5, 3) | one}, {3: row(0.25, 3) | other}
    assert bool(gain(HALF, rows, others)) == is_pair


def test_results_belong_to_the_arm_and_corpus_with_their_settings() -> None:
    arm = Arm("one", "One", {"nprobe": 1})
    key = Run.of(arm, HALF_ALIGNED, 0).arm_key
    results = [row(0.1, 0, key), row(0.2, 3, key), row(0.3, 1, "other")]
    assert sorted(rows_of(arm, HALF_ALIGNED, results)) == [0, 3]
    assert rows_of(arm, HOWTO100M, results) == {}


def test_the_tables_have_a_line_per_arm_and_a_column_per_number() -> None:
    arms = [
        Arm("A", "plain"),
        Arm("B", "new", against="A"),
        Arm("C", "no results", against="A"),
    ]
    by_arm = {"A": by_seed({0: 0.25, 1: 0.5}), "B": by_seed({0: 0.5, 1: 0.5}), "C": {}}
    text = tables(arms, by_arm, MAIN)
    one_seed = tables(arms, by_arm | {"B": by_seed({1: 0.75})}, MAIN)
    assert "| new (seed 1) | 75.0 |" in one_seed
    assert "| new, against A (seed 1) | +25.0 |" in one_seed
    assert "| plain | 37.5 ± 12.5 |" in text
    assert "| new, against A | +12.5 ± 12.5 |" in text
    assert "no results" not in text
    means, gains = text.split("\n\n")
    for table in (means, gains):
        widths = {line.count("|") for line in table.splitlines()}
        assert widths == {len(MAIN) + 2}
    assert CLIP.title in text
