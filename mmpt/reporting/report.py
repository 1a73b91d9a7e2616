"""Renders the sections of a report as one HTML page. The first section is the table of numbers."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

import mmpt
from mmpt.evaluators.published import PUBLISHED, benchmark_key, comparability_notes, setting_of
from mmpt.evaluators.table import ResultsLike, format_value, numbers_of
from mmpt.reporting import retrieval  # noqa: F401  it registers pictures
from mmpt.reporting.run import Run, Section, pictures
from mmpt.reporting.training import training_section
from mmpt.utils.io import atomic_write


def write_report(run: Run, path: str | Path) -> Path:
    """Writes the report of a run as one HTML file that loads no other files. Returns its path."""
    # A template of a benchmark is named with its folder, as in `coin/segments.html`.
    loader = ChoiceLoader([PackageLoader("mmpt.reporting"), PackageLoader("mmpt", "endtasks")])
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    sections = [_numbers_section(run), *training_section(run), *pictures(run.outputs, run)]
    bodies = [
        (section.title, templates.get_template(section.template).render(section.data))
        for section in sections
    ]
    page = templates.get_template("report.html").render(
        title=f"{run.config.name}: report", facts=_facts(run), sections=bodies
    )
    # Captions may contain lone surrogates, which JSON allows and UTF-8 does not.
    with atomic_write(path, errors="replace") as file:
        file.write(page)
    return Path(path)


def _facts(run: Run) -> dict[str, str]:
    """Returns the facts above the sections, title -> text. Empty texts are not shown."""
    benchmark = PUBLISHED.get(benchmark_key(run.config.name))
    best = run.rows[run.best]
    titles = [benchmark.title if benchmark else "", setting_of(run.config.name) or ""]
    paths = [f"{n} ({row['checkpoint']})" for n, row in zip(run.names, run.rows, strict=True)]
    shown = f"{run.names[run.best]}, sha256 {best['fingerprint'][:12]}"
    scored, missing = best["num_items"], best["num_missing"]
    when = time.strftime("%Y-%m-%d %H:%M")
    return {
        "benchmark": ", ".join(filter(None, titles)),
        "checkpoints": ", ".join(paths),
        "shown below": shown if len(run.rows) > 1 else "",
        "test items": f"{scored:,} of {scored + missing:,}, data {best['data_fingerprint'][:12]}",
        "made": f"{when} by mmpt {mmpt.__version__} from {run.config.path}",
    }


def _numbers_section(run: Run) -> Section:
    """Returns the section with the table of metrics and notes on what can be compared.

    If several checkpoints have different values, the best value is marked.
    """
    scored: list[ResultsLike] = [row["metrics"] for row in run.rows]
    benchmark = PUBLISHED.get(benchmark_key(run.config.name))
    reported = benchmark.papers if benchmark else {}
    papers = {name: results for name, results in reported.items() if any(results.values())}
    rows: list[dict[str, Any]] = []
    for metric in run.chance:
        for number in numbers_of(metric, run.columns):
            values = _values(metric, number.name, scored)
            known = {value for value in values if value is not None}
            best = None
            if len(known) > 1:
                best = min(known) if number.unit == "rank" else max(known)
            by_papers = _values(metric, number.name, papers.values())
            row = {
                "title": number.title,
                "chance": format_value(run.chance[metric].get(number.name), number),
                "scores": [(format_value(v, number), v is not None and v == best) for v in values],
                "papers": [format_value(value, number) for value in by_papers],
            }
            rows.append(row)
    data = {
        "checkpoints": list(run.names),
        "papers": [f"{name} (paper)" for name in papers],
        "rows": rows,
        "warnings": comparability_notes(benchmark, dict(zip(run.names, run.rows, strict=True))),
        "notes": benchmark.notes if benchmark else (),
    }
    return Section("Numbers", "numbers.html", data)


def _values(metric: str, name: str, columns: Iterable[ResultsLike]) -> list[float | None]:
    """Returns one number of a metric from each column; None if the column does not have it."""
    return [results.get(metric, {}).get(name) for results in columns]
