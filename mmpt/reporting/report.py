"""Puts a run's sections together and writes the page."""

from __future__ import annotations

import time
from pathlib import Path

import mmpt
from mmpt.evaluators.published import PUBLISHED, benchmark_key, setting_of
from mmpt.reporting.markup import escape, page
from mmpt.reporting.numbers import numbers_section
from mmpt.reporting.pictures import pictures
from mmpt.reporting.run import Run
from mmpt.reporting.training import training_section
from mmpt.utils.io import atomic_write


def write_report(run: Run, path: str | Path) -> Path:
    """Write the report of `run` as one HTML file, which needs nothing else; return its path."""
    found = [numbers_section(run), training_section(run), *pictures(run.outputs, run)]
    sections = [section for section in found if section is not None]
    html = page(f"{run.config.name}: report", _lead(run), sections)
    with atomic_write(path, "wb") as file:
        file.write(html.encode("utf-8", "replace"))  # captions may hold halves of characters, which JSON lets pass
    return Path(path)


def _lead(run: Run) -> str:
    """Return what was scored, and when."""
    benchmark, row = PUBLISHED.get(benchmark_key(run.config.name)), run.rows[run.best]
    num_items, num_missing = row["num_items"], row["num_missing"]
    facts = {
        "benchmark": ", ".join(filter(None, (benchmark.title if benchmark else "", setting_of(run.config.name)))),
        "checkpoints": ", ".join(f"{name} ({r['checkpoint']})" for name, r in zip(run.names, run.rows, strict=True)),
        "shown below": f"{run.names[run.best]}, sha256 {row['fingerprint'][:12]}" if len(run.rows) > 1 else "",
        "test items": f"{num_items:,} of {num_items + num_missing:,}, data {row['data_fingerprint'][:12]}",
        "made": f"{time.strftime('%Y-%m-%d %H:%M')} by mmpt {mmpt.__version__} from {run.config.path}",
    }
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items() if v) + "</dl>"
