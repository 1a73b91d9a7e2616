"""The table of a report: every number of every checkpoint, next to chance and the papers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmpt.evaluators.published import PUBLISHED, benchmark_key, comparability_notes
from mmpt.evaluators.table import ResultsLike, format_value, numbers_of
from mmpt.reporting.run import Run, Section


def numbers_section(run: Run) -> Section:
    """Returns the table of metrics, with notes on what can be compared.

    Where several checkpoints differ, the best value is marked. Values that metrics keep besides the
    numbers that they declare come in a table of their own.
    """
    scored: list[ResultsLike] = [row["metrics"] for row in run.rows]
    benchmark = PUBLISHED.get(benchmark_key(run.config.name))
    papers = benchmark.papers if benchmark else {}
    rows: list[dict[str, Any]] = []
    further: list[tuple[str, list[float | None]]] = []
    for metric in run.chance:
        names = dict.fromkeys(name for results in scored for name in results.get(metric, {}))
        for number in numbers_of(metric, run.columns):
            names.pop(number.name, None)
            values = _values(metric, number.name, scored)
            known = {value for value in values if value is not None}
            best = (min if number.unit == "rank" else max)(known) if len(known) > 1 else None
            by_papers = _values(metric, number.name, papers.values())
            row = {
                "title": number.title,
                "chance": format_value(run.chance[metric].get(number.name), number),
                "scores": [(format_value(v, number), v is not None and v == best) for v in values],
                "papers": [format_value(value, number) for value in by_papers],
            }
            rows.append(row)
        further += [(name, _values(metric, name, scored)) for name in names]
    data = {
        "checkpoints": list(run.names),
        "papers": [f"{name} (paper)" for name in papers],
        "rows": rows,
        "further": further,
        "warnings": comparability_notes(benchmark, dict(zip(run.names, run.rows, strict=True))),
        "notes": benchmark.notes if benchmark else (),
    }
    return Section("Numbers", "numbers.html", data)


def _values(metric: str, name: str, columns: Iterable[ResultsLike]) -> list[float | None]:
    return [results.get(metric, {}).get(name) for results in columns]
