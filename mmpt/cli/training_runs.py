"""Training runs in `mmpt report` and `mmpt compare`: their results files, tables and pages."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt.cli.result_tables import (
    RESULTS,
    Group,
    Row,
    columns_of,
    group_rows,
    read_rows,
)
from mmpt.cli.result_tables import as_text as group_as_text
from mmpt.errors import DataError, LaunchError
from mmpt.utils.io import file_hash
from mmpt.utils.metrics_log import METRICS_LOG
from mmpt.utils.tables import markdown_table, text_table

if TYPE_CHECKING:
    from mmpt.reporting.training_runs import TrainingRun

CONFIG = "config.yaml"
REPORT = "training-report.html"
COMPARISON = "training-comparison.html"
"""Names of the pages about one training run and about several."""
_WIDEST = 40
"""Largest number of characters of a setting in the terminal. The end of a longer one is shown."""


def is_training_folder(path: str | Path) -> bool:
    """Returns whether a path is a training folder, which may not have metrics yet.

    A folder with `config.yaml` and `results.json`, but without metrics, belongs to an evaluation.
    """
    folder = Path(path)
    has_results = (folder / RESULTS).is_file()
    is_new = (folder / CONFIG).is_file() and not has_results
    return (folder / METRICS_LOG).is_file() or is_new


def read_training_runs(folders: Iterable[str | Path]) -> "list[TrainingRun]":
    """Reads training runs; see `mmpt.reporting.training_runs`.

    torch is imported if there are folders.
    """
    folders = list(folders)
    if not folders:
        return []
    from mmpt.reporting import training_runs  # deferred: imports torch

    return training_runs.read_training_runs(folders)


def find_results(folder: str | Path) -> list[str]:
    """Returns the results files in a folder and its sub-folders."""
    return [str(path) for path in sorted(Path(folder).rglob(RESULTS))]


def report_training_run(folder: str, results: Sequence[str], out: Path | None) -> None:
    """Writes the report of a training run, and prints a summary and its path.

    Args:
        folder: the `save_dir`. Only the report is written to it.
        results: results files, or folders that contain one, in addition to those in `folder`.
        out: the file to write. None: in `folder`.
    Raises:
        DataError: the folder is not a training folder, or `results` does not belong to it.
        LaunchError: `results` names another training run.
    """
    from mmpt.reporting.training_runs import (
        describe_best,
        describe_state,
    )  # deferred: torch

    to_compare = f"mmpt compare {shlex.join([folder, *results])}"
    others = [path for path in results if (Path(path) / METRICS_LOG).is_file()]
    if others:
        raise LaunchError(
            f"{others[0]} is a second training run, but a report describes one. Compare them: "
            f"{to_compare}"
        )
    (training,) = read_training_runs([folder])
    named = _rows_of(training, results)
    if results and not named:
        raise DataError(
            f"{', '.join(results)}: must hold a score of a checkpoint in {folder}, but holds none. "
            f"Name other results, or compare them: {to_compare}"
        )
    rows = _rows_of(training, [*find_results(folder), *results])
    groups = group_rows(rows)
    page = out or training.folder / REPORT
    write_page([training], groups, page)
    lines = [describe_state(training), describe_best(training)]
    texts = ["\n".join(filter(None, lines)), as_text([training], markdown=False)]
    texts += [group_as_text(group, markdown=False) for group in groups]
    print("\n\n".join([*texts, str(page)]))


def _rows_of(training: "TrainingRun", paths: Sequence[str]) -> list[Row]:
    """Returns the rows of results files that belong to checkpoints of a training run."""
    folder = training.folder.resolve()
    rows = []
    for row in read_rows(paths, may_be_empty=True):
        checkpoint = Path(row["checkpoint"])
        is_here = checkpoint.resolve().parent == folder
        if is_here or _was_moved(checkpoint, folder, row["fingerprint"]):
            rows.append(row)
    return rows


def _was_moved(checkpoint: Path, folder: Path, fingerprint: str) -> bool:
    """Returns whether a checkpoint that was scored is in another folder now.

    The file is only hashed if the path that was scored is gone.
    """
    moved = folder / checkpoint.name
    is_candidate = moved.exists() and not checkpoint.exists()
    return is_candidate and file_hash(moved) == fingerprint


def write_page(
    trainings: "Sequence[TrainingRun]", groups: Sequence[Group], path: Path
) -> None:
    """Writes the HTML page of training runs with the scores of their checkpoints."""
    from mmpt.reporting.training_runs import Evaluation, write_training_page

    evaluations = []
    for group in groups:
        columns = columns_of(group)
        evaluations.append(Evaluation(group["title"], columns, group["notes"]))
    write_training_page(trainings, evaluations, path)


def as_text(trainings: "Sequence[TrainingRun]", *, markdown: bool) -> str:
    """Returns the figures of training runs, and the settings in which they differ, as tables."""
    from mmpt.reporting.training_runs import difference_rows, summary_rows

    make_table = markdown_table if markdown else text_table
    names = [training.name for training in trainings]
    tables = [make_table(["", *names], summary_rows(trainings))]
    differences = difference_rows(trainings)
    if differences:
        rows = [[key, *map(_shorten, values)] for key, *values in differences]
        tables.append(make_table(["key", *names], rows))
    if markdown:
        tables.insert(0, "## Training runs")
    return "\n\n".join(tables)


def _shorten(cell: str) -> str:
    """Returns the end of a long text, because paths differ there."""
    if len(cell) <= _WIDEST:
        return cell
    end = cell[1 - _WIDEST :]
    return f"…{end}"


def as_group(trainings: "Sequence[TrainingRun]", page: Path) -> Group:
    """Returns the figures of training runs as a `Group`, so that `--json` can print them."""
    from mmpt.reporting.training_runs import difference_rows, summary_of

    names = [training.name for training in trainings]
    differences = {}
    for key, *values in difference_rows(trainings):
        differences[key] = dict(zip(names, values, strict=True))
    return {
        "benchmark": "training",
        "title": "training runs",
        "setting": "",
        "runs": {training.name: summary_of(training) for training in trainings},
        "published": {},
        "notes": [],
        "differences": differences,
        "page": str(page),
    }
