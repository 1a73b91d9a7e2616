"""The table of a report: every number of every checkpoint, beside chance and what the papers report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmpt.evaluators import Number
from mmpt.evaluators.published import PUBLISHED, benchmark_key, comparability_notes
from mmpt.evaluators.table import ResultsLike, format_value, numbers_of
from mmpt.reporting.markup import Section, escape, note, table, tag
from mmpt.reporting.run import Run


def numbers_section(run: Run) -> Section:
    """Return the table of metrics, the best checkpoint of each row in bold, with notes on what can be compared."""
    scored: dict[str, ResultsLike] = {name: row["metrics"] for name, row in zip(run.names, run.rows, strict=True)}
    benchmark = PUBLISHED.get(benchmark_key(run.config.name))
    papers = benchmark.papers if benchmark else {}
    columns: dict[str, ResultsLike] = {"chance": run.chance, **scored}
    header = ["", *map(escape, columns), *(f"{escape(method)}<br>(paper)" for method in papers)]
    rows = [
        [
            escape(number.title),
            *_cells(metric, number, run.chance, scored),
            *(tag("span", _cell(metric, number, results), class_="where") for results in papers.values()),
        ]
        for metric in run.chance
        for number in numbers_of(metric, columns)
    ]
    warnings = comparability_notes(benchmark, dict(zip(run.names, run.rows, strict=True)))
    body = "".join(tag("p", escape(text), class_="warning") for text in warnings) + table(header, rows)
    body += "".join(note(text) for text in (benchmark.notes if benchmark else ()))
    return Section("Numbers", body + _details(run, scored), "Shares in percent; of ranks, 1 is best.")


def _cells(metric: str, number: Number, chance: ResultsLike, scored: Mapping[str, ResultsLike]) -> list[str]:
    """Return chance and the checkpoints' numbers; the best is bold where there are several."""
    values = [results.get(metric, {}).get(number.name) for results in scored.values()]
    known = [value for value in values if value is not None]
    best = (min if number.unit == "rank" else max)(known) if len(set(known)) > 1 else None
    cells = [format_value(value, number) for value in values]
    bold = [
        tag("b", cell) if value is not None and value == best else cell
        for cell, value in zip(cells, values, strict=True)
    ]
    return [tag("span", _cell(metric, number, chance), class_="where"), *bold]


def _cell(metric: str, number: Number, results: ResultsLike) -> str:
    return format_value(results.get(metric, {}).get(number.name), number)


def _details(run: Run, scored: Mapping[str, ResultsLike]) -> str:
    """Return what metrics keep beside the numbers they declare."""
    rows: list[Sequence[str]] = []
    for metric in run.chance:
        declared = {number.name for number in numbers_of(metric, scored)}
        names = dict.fromkeys(name for results in scored.values() for name in results.get(metric, {}))
        rows += [
            [escape(name), *(_plain(results.get(metric, {}).get(name)) for results in scored.values())]
            for name in names
            if name not in declared
        ]
    if not rows:
        return ""
    return tag("details", tag("summary", f"{len(rows)} further values") + table(["", *map(escape, scored)], rows))


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
