"""The table of a report: every number of every checkpoint, next to chance and the papers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpt.evaluators import Number
from mmpt.evaluators.published import PUBLISHED, benchmark_key, comparability_notes
from mmpt.evaluators.table import ResultsLike, format_value, numbers_of
from mmpt.reporting.pictures import Section
from mmpt.reporting.run import Run


def numbers_section(run: Run) -> Section:
    """Returns the table of metrics, with notes on what can be compared."""
    scored: dict[str, ResultsLike] = {
        name: row["metrics"] for name, row in zip(run.names, run.rows, strict=True)
    }
    benchmark = PUBLISHED.get(benchmark_key(run.config.name))
    papers = benchmark.papers if benchmark else {}
    columns = {"chance": run.chance, **scored}
    data = {
        "checkpoints": list(run.names),
        "papers": [f"{name} (paper)" for name in papers],
        "rows": [
            _row(metric, number, run.chance, scored, papers)
            for metric in run.chance
            for number in numbers_of(metric, columns)
        ],
        "further": _further(run, scored),
        "warnings": comparability_notes(benchmark, dict(zip(run.names, run.rows, strict=True))),
        "notes": benchmark.notes if benchmark else (),
    }
    return Section("Numbers", "numbers.html", data)


def _row(
    metric: str,
    number: Number,
    chance: ResultsLike,
    scored: Mapping[str, ResultsLike],
    papers: Mapping[str, ResultsLike],
) -> dict[str, Any]:
    """Returns a row of the table; where several checkpoints differ, the best value is marked."""
    values = _values(metric, number.name, scored)
    known = {value for value in values if value is not None}
    best = (min if number.unit == "rank" else max)(known) if len(known) > 1 else None
    return {
        "title": number.title,
        "chance": format_value(chance.get(metric, {}).get(number.name), number),
        "scores": [(format_value(v, number), v is not None and v == best) for v in values],
        "papers": [format_value(v, number) for v in _values(metric, number.name, papers)],
    }


def _values(metric: str, name: str, columns: Mapping[str, ResultsLike]) -> list[float | None]:
    return [results.get(metric, {}).get(name) for results in columns.values()]


def _further(run: Run, scored: Mapping[str, ResultsLike]) -> list[tuple[str, list[float | None]]]:
    """Returns what metrics keep besides the numbers that they declare, with its values."""
    rows = []
    for metric in run.chance:
        declared = {number.name for number in numbers_of(metric, scored)}
        names = dict.fromkeys(
            name for results in scored.values() for name in results.get(metric, {})
        )
        rows += [(name, _values(metric, name, scored)) for name in names if name not in declared]
    return rows
