"""The HTML page about one or several trainings."""

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
from mmpt.reporting.trainings.charts import (
    colour_of,
    loss_charts,
    retrieval_charts,
    speed_charts,
)
from mmpt.reporting.trainings.run import CONFIG, Training
from mmpt.reporting.trainings.state import State, best_metric
from mmpt.reporting.trainings.tables import difference_rows, summary_rows
from mmpt.utils.io import read_json
from mmpt.utils.run_loggers import RUN_METADATA


class Evaluation(NamedTuple):
    """The scores of checkpoints in one benchmark."""

    title: str
    columns: Mapping[str, ResultsLike]
    """Title of a column -> its results."""
    notes: Sequence[str]


def write_training_page(
    trainings: Sequence[Training],
    evaluations: Sequence[Evaluation],
    path: str | Path,
) -> Path:
    """Writes one HTML file that loads no other files. Returns its path.

    Args:
        trainings: at least one. The curves of several are in the same charts.
        evaluations: scores of their checkpoints.
        path: the file.
    """
    sections = [
        _summary_section(trainings),
        *_chart_sections(trainings),
        *_evaluation_section(evaluations),
        _settings_section(trainings),
    ]
    names = ", ".join(training.name for training in trainings)
    title = f"{names}: training"
    if len(trainings) > 1:
        title = f"{len(trainings)} trainings: {names}"
    return write_page(path, title, _facts(trainings), sections)


def _facts(trainings: Sequence[Training]) -> dict[str, str]:
    """Returns the facts above the sections, title -> text."""
    made = time.strftime("%Y-%m-%d %H:%M")
    facts = {}
    if len(trainings) == 1:
        (training,) = trainings
        facts = {
            "folder": str(training.folder),
            "state": describe_state(training),
            "best checkpoint": describe_best(training),
            "code": _code(training),
            "logged": f"{_clock(training, 0)} to {_clock(training, -1)}",
        }
    else:
        for training in trainings:
            facts[training.name] = f"{describe_state(training)} ({training.folder})"
    return facts | {"made": f"{made} by mmpt {mmpt.__version__}"}


def _code(training: Training) -> str:
    """Returns the version and the git commit of the code of a training, as far as recorded."""
    path = training.folder / RUN_METADATA
    facts = read_json(path) if path.exists() else {}
    parts = []
    for key, title in (("mmpt", "mmpt"), ("git_commit", "git commit")):
        value = value_at(facts, key)
        if value is not None:
            parts.append(f"{title} {value}")
    return ", ".join(parts)


def _clock(training: Training, place: int) -> str:
    """Returns the local time of a line of the metrics."""
    when = time.localtime(training.lines[place].time)
    return time.strftime("%Y-%m-%d %H:%M", when)


def describe_state(training: Training) -> str:
    """Returns the state of a training as text, such as "running: epoch 3 of 6, 420 updates"."""
    state = training.state
    progress = state.progress
    epoch = f"epoch {progress.epoch}"
    updates = f"{progress.num_updates:,}"
    if state.max_epoch:
        epoch += f" of {state.max_epoch}"
    if state.max_update:
        updates += f" of {state.max_update:,}"
    text = f"{_condition(state)}: {epoch}, {updates} updates"
    minutes = list(training.curve("train", "minutes_left").values())
    if state.condition == "running" and minutes:
        text += f", about {minutes[-1]:,.0f} minutes left"
    return text


def _condition(state: State) -> str:
    if state.condition == "not finished":
        return "not finished (it has no lock that shows whether it is running)"
    return state.condition


def describe_best(training: Training) -> str:
    """Returns the best checkpoint as text; empty if there is none."""
    best = training.state.best
    if best is None:
        return ""
    name, _ = best_metric(training.settings)
    number = f"validation {name} {best.value:.5g}"
    return f"{best.path.name}: {number} after update {best.num_updates:,}"


def _summary_section(trainings: Sequence[Training]) -> Section:
    data = {
        "names": [training.name for training in trainings],
        "rows": summary_rows(trainings),
    }
    return Section("Summary", "training_summary.html", data)


def _chart_sections(trainings: Sequence[Training]) -> list[Section]:
    """Returns the sections with curves. Those without a chart are left out."""
    legend = []
    if len(trainings) > 1:
        for place, training in enumerate(trainings):
            legend.append((themed(colour_of(place)), training.name))
    sections = []
    for title, note, dashed, charts in (
        (
            "Losses and metrics",
            "Each point of training is the mean since the last line of the log.",
            "validation",
            loss_charts(trainings),
        ),
        (
            "Retrieved batches",
            "Cosine of two videos of a batch in the plan of each epoch, share of the videos that "
            "occur in it, and time that it took.",
            "random batches",
            retrieval_charts(trainings),
        ),
        (
            "Speed and memory",
            "Rates are over all processes. The minutes of an epoch include its refresh, but no "
            "interruptions.",
            "",
            speed_charts(trainings),
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


def _settings_section(trainings: Sequence[Training]) -> Section:
    """Returns the section with the settings that differ, and with all settings."""
    texts = {}
    for training in trainings:
        if training.settings:
            file = str(training.folder / CONFIG)
            texts[file] = to_yaml(training.settings)
    data = {
        "names": [training.name for training in trainings],
        "differences": difference_rows(trainings),
        "texts": texts,
    }
    return Section("Configuration", "training_settings.html", data)
