"""Renders a run's sections into one HTML page."""

from __future__ import annotations

import time
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import mmpt
from mmpt.evaluators.published import PUBLISHED, benchmark_key, setting_of
from mmpt.reporting import alignments, choices, retrieval, timelines  # noqa: F401  these register pictures
from mmpt.reporting.numbers import numbers_section
from mmpt.reporting.run import Run, pictures
from mmpt.reporting.training import training_section
from mmpt.utils.io import atomic_write


def write_report(run: Run, path: str | Path) -> Path:
    """Writes the report of `run` as one HTML file, which needs nothing else; returns its path."""
    templates = Environment(
        loader=PackageLoader("mmpt.reporting"), autoescape=True, undefined=StrictUndefined
    )
    sections = [numbers_section(run), *training_section(run), *pictures(run.outputs, run)]
    bodies = [
        (section.title, templates.get_template(section.template).render(section.data))
        for section in sections
    ]
    page = templates.get_template("report.html").render(
        title=f"{run.config.name}: report", facts=_facts(run), sections=bodies
    )
    # Captions may hold halves of surrogate pairs, which JSON allows and UTF-8 does not.
    with atomic_write(path, errors="replace") as file:
        file.write(page)
    return Path(path)


def _facts(run: Run) -> dict[str, str]:
    """Returns what was scored and when; an empty text is not shown."""
    benchmark, best = PUBLISHED.get(benchmark_key(run.config.name)), run.rows[run.best]
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
