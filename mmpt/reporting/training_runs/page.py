"""The HTML page about one or several training runs."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import mmpt
from mmpt.config.yaml_files import to_yaml, value_at
from mmpt.evaluators.table import ResultsLike, table_rows
from mmpt.reporting.figures import themed
from mmpt.reporting.page import write_page
from mmpt.reporting.run import Section
from mmpt.reporting.training_runs.charts import (
    colour_of,
    loss_charts,
    retrieval_charts,
    speed_charts,
)
from mmpt.reporting.training_runs.run import CONFIG, TrainingRun
from mmpt.reporting.training_runs.state import State, best_metric
from mmpt.reporting.training_runs.tables import difference_rows, summary_rows
from mmpt.utils.io import read_json
from mmpt.utils.run_loggers import RUN_METADATA


class Evaluation(NamedTuple):
    """The scores of checkpoints in one benchmark."""

    title: str
    columns: Mapping[str, ResultsLike]
    """Title of a column -> its results."""
    notes: Sequence[str]


def write_training_page(
    runs: Sequence[TrainingRun],
    evaluations: Sequence[Evaluation],
    path: str | Path,
) -> Path:
    """Writes one HTML file that loads no other files. Returns its path.

    Args:
        runs: at least one. The curves of several are in the same charts.
        evaluations: scores of their checkpoints.
        path: the file.
    """
    sections = [
        _summary_section(runs),
        *_chart_sections(runs),
        *_evaluation_section(evaluations),
        _settings_section(runs),
    ]
    names = ", ".join(run.name for run in runs)
    title = f"{names}: training"
    if len(runs) > 1:
        title = f"{len(runs)} training runs: {names}"
    return write_page(path, title, _facts(runs), sections)


def _facts(runs: Sequence[TrainingRun]) -> dict[str, str]:
    """Returns the facts above the sections, title -> text."""
    made = time.strftime("%Y-%m-%d %H:%M")
    facts = {}
    if len(runs) == 1:
        (run,) = runs
        facts = {
            "folder": str(run.folder),
            "state": describe_state(run),
            "best checkpoint": describe_best(run),
            "code": _code(run),
            "logged": f"{_clock(run, 0)} to {_clock(run, -1)}",
        }
    else:
        for run in runs:
            facts[run.name] = f"{describe_state(run)} ({run.folder})"
    return facts | {"made": f"{made} by mmpt {mmpt.__version__}"}


def _code(run: TrainingRun) -> str:
    """Returns the version and the git commit of the code of a training run, as far as recorded."""
    path = run.folder / RUN_METADATA
    facts = read_json(path) if path.exists() else {}
    parts = []
    for key, title in (("mmpt", "mmpt"), ("git_commit", "git commit")):
        value = value_at(facts, key)
        if value is not None:
            parts.append(f"{title} {value}")
    return ", ".join(parts)


def _clock(run: TrainingRun, place: int) -> str:
    """Returns the local time of a line of the metrics."""
    when = time.localtime(run.lines[place].time)
    return time.strftime("%Y-%m-%d %H:%M", when)


def describe_state(run: TrainingRun) -> str:
    """Returns the state of a training run as text, such as "running: epoch 3 of 6, 420 updates"."""
    state = run.state
    progress = state.progress
    epoch = f"epoch {progress.epoch}"
    updates = f"{progress.num_updates:,}"
    if state.max_epoch:
        epoch += f" of {state.max_epoch}"
    if state.max_update:
        updates += f" of {state.max_update:,}"
    text = f"{_condition(state)}: {epoch}, {updates} updates"
    minutes = list(run.curve("train", "minutes_left").values())
    if state.condition == "running" and minutes:
        text += f", about {minutes[-1]:,.0f} minutes left"
    return text


def _condition(state: State) -> str:
    if state.condition == "not finished":
        return "not finished (it has no lock that shows whether it is running)"
    return state.condition


def describe_best(run: TrainingRun) -> str:
    """Returns the best checkpoint as text; empty if there is none."""
    best = run.state.best
    if best is None:
        return ""
    name, _ = best_metric(run.settings)
    number = f"validation {name} {best.value:.5g}"
    return f"{best.path.name}: {number} after update {best.num_updates:,}"


def _summary_section(runs: Sequence[TrainingRun]) -> Section:
    data = {
        "names": [run.name for run in runs],
        "rows": summary_rows(runs),
    }
    return Section("Summary", "training_summary.html", data)


def _chart_sections(runs: Sequence[TrainingRun]) -> list[Section]:
    """Returns the sections with curves. Those without a chart are left out."""
    legend = []
    if len(runs) > 1:
        for place, run in enumerate(runs):
            legend.append((themed(colour_of(place)), run.name))
    sections = []
    for title, note, dashed, charts in (
        (
            "Losses and metrics",
            "Each point of training is the mean since the last line of the log.",
            "validation",
            loss_charts(runs),
        ),
        (
            "Retrieved batches",
            "Cosine of two videos of a batch in the plan of each epoch, share of the videos that "
            "occur in it, and time that it took.",
            "random batches",
            retrieval_charts(runs),
        ),
        (
            "Speed and memory",
            "Rates are over all processes. The minutes of an epoch include its refresh, but no "
            "interruptions.",
            "",
            speed_charts(runs),
        ),
    ):
        data = {"note": note, "legend": legend, "dashed": dashed, "charts": charts}
        if charts:
            sections.append(Section(title, "training_curves.html", data))
    return sections


def _evaluation_section(evaluations: Sequence[Evaluation]) -> list[Section]:
    tables = []
    for evaluation in evaluations:
        header, *rows = table_rows(evaluation.columns)
        tables.append(
            {
                "title": evaluation.title,
                "header": header,
                "rows": rows,
                "notes": evaluation.notes,
            }
        )
    if not tables:
        return []
    return [Section("Evaluation", "training_scores.html", {"tables": tables})]


def _settings_section(runs: Sequence[TrainingRun]) -> Section:
    """Returns the section with the settings that differ, and with all settings."""
    texts = {}
    for run in runs:
        if run.settings:
            file = str(run.folder / CONFIG)
            texts[file] = to_yaml(run.settings)
    data = {
        "names": [run.name for run in runs],
        "differences": difference_rows(runs),
        "texts": texts,
    }
    return Section("Configuration", "training_settings.html", data)
