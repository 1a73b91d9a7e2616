"""Writes the report of an evaluation. The first section is the table of numbers."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mmpt
from mmpt.errors import UserError
from mmpt.evaluators import MetricValue
from mmpt.evaluators.published import (
    benchmark_key,
    comparability_notes,
    published_benchmarks,
    setting_of,
)
from mmpt.evaluators.table import ResultsLike, format_value, numbers_of, values_of
from mmpt.reporting import retrieval  # noqa: F401  it registers sections
from mmpt.reporting.page import write_page
from mmpt.reporting.run import EvaluationRun, Section, prediction_sections
from mmpt.reporting.training_runs import (
    is_training_run,
    loss_charts,
    read_training_runs,
    retrieval_charts,
)
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


def write_report(run: EvaluationRun, path: str | Path) -> Path:
    """Writes the report of a run as one HTML file that loads no other files. Returns its path."""
    sections = [
        _numbers_section(run),
        *_training_section(run),
        *prediction_sections(run.outputs, run),
    ]
    return write_page(path, f"{run.config.name}: report", _facts(run), sections)


def _facts(run: EvaluationRun) -> dict[str, str]:
    """Returns the facts above the sections, title -> text. Empty texts are not shown."""
    benchmark = published_benchmarks().get(benchmark_key(run.config.name))
    best = run.rows[run.best]
    title = benchmark.title if benchmark else ""
    titles = [title, setting_of(run.config.name)]
    paths = []
    for name, row in zip(run.names, run.rows, strict=True):
        paths.append(f"{name} ({row['checkpoint']})")
    shown = ""
    if len(run.rows) > 1:
        checkpoint = best["fingerprint"][:12]
        shown = f"{run.names[run.best]}, sha256 {checkpoint}"
    num_scored = best["num_items"]
    num_items = num_scored + best["num_missing"]
    data = best["data_fingerprint"][:12]
    when = time.strftime("%Y-%m-%d %H:%M")
    return {
        "benchmark": ", ".join(filter(None, titles)),
        "checkpoints": ", ".join(paths),
        "shown below": shown,
        "test items": f"{num_scored:,} of {num_items:,}, data {data}",
        "made": f"{when} by mmpt {mmpt.__version__} from {run.config.path}",
    }


def _training_section(run: EvaluationRun) -> list[Section]:
    """Returns the section with the curves of the training runs of all checkpoints.

    The list is empty if no folder of a checkpoint has the metrics of a training run.
    """
    charts = {}
    for row in run.rows:
        folder = Path(row["checkpoint"]).parent
        if str(folder) not in charts:
            charts[str(folder)] = _training_charts(folder)
    if not any(charts.values()):
        return []
    return [Section("Training", "training.html", {"charts": charts})]


def _training_charts(folder: Path) -> dict[str, str]:
    """Returns {title: SVG} of the training run in `folder`, empty if it cannot be read."""
    if not is_training_run(folder):
        return {}
    try:
        runs = read_training_runs([folder])
    except UserError as err:
        # The evaluation is complete, so a damaged log of the training run does not stop it.
        logger.warning(
            "the report is written without the curves of the training run. %s", err
        )
        return {}
    return loss_charts(runs) | retrieval_charts(runs)


def _numbers_section(run: EvaluationRun) -> Section:
    """Returns the section with the table of metrics and notes on what can be compared.

    If several checkpoints have different values, the best value is marked.
    """
    benchmark = published_benchmarks().get(benchmark_key(run.config.name))
    papers: dict[str, ResultsLike] = {}
    if benchmark:
        for method, results in benchmark.papers.items():
            if any(results.values()):
                papers[f"{method} (paper)"] = results
    rows = []
    for metric in run.chance:
        for number in numbers_of(metric, run.columns):
            rows.append(_row(run, metric, number, papers.values()))
    by_name = dict(zip(run.names, run.rows, strict=True))
    data = {
        "checkpoints": list(run.names),
        "papers": list(papers),
        "rows": rows,
        "warnings": comparability_notes(benchmark, by_name),
        "notes": benchmark.notes if benchmark else (),
    }
    return Section("Numbers", "numbers.html", data)


def _row(
    run: EvaluationRun, metric: str, number: MetricValue, papers: Iterable[ResultsLike]
) -> dict[str, Any]:
    """Returns the variables of a row of the table: one number of a metric in every column."""
    scored = [row["metrics"] for row in run.rows]
    values = values_of(metric, number.name, scored)
    known = {value for value in values if value is not None}
    best = None
    if len(known) > 1:
        best = min(known) if number.unit == "rank" else max(known)
    scores = []
    for value in values:
        is_best = value is not None and value == best
        scores.append((format_value(value, number), is_best))
    by_chance = run.chance[metric].get(number.name)
    by_papers = values_of(metric, number.name, papers)
    return {
        "title": number.title,
        "chance": format_value(by_chance, number),
        "scores": scores,
        "papers": [format_value(value, number) for value in by_papers],
    }
