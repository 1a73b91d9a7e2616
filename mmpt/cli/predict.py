"""`mmpt predict`: scores checkpoints on the test sets of YAMLs, like `--jobtype local_predict`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from mmpt.cli.main import Command, Device, choose_device
from mmpt.config import RunConfig, load_config
from mmpt.errors import LaunchError
from mmpt.utils.log import get_logger

# The functions below import these themselves, so that --help and argument errors do not wait.
if TYPE_CHECKING:
    from mmpt import reporting
    from mmpt.evaluators import Results

logger = get_logger(__name__)


Tables = list[tuple[Sequence[str], "dict[str, Results]"]]
"""For each table, its checkpoints and its columns: `chance`, then a column per checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command."""

    yamls: Annotated[
        list[str] | None,
        Argument(metavar="YAML", help="Evaluation YAMLs, scored one after another."),
    ] = None
    taskconfig: Annotated[
        list[str] | None,
        Option(
            metavar="YAML",
            help="Same as YAML; the release uses this form for HTM-Align.",
        ),
    ] = None
    device: Device = None
    all_checkpoints: Annotated[
        bool,
        Option(
            "--all-checkpoints",
            help="Also score every checkpoint*.pt in the folder above eval.save_path.",
        ),
    ] = False
    save_predictions: Annotated[
        bool,
        Option(
            "--save-predictions",
            help="Save scores and vectors as .npz next to results.json.",
        ),
    ] = False
    allow_missing: Annotated[
        bool,
        Option("--allow-missing", help="Leave out test items without features."),
    ] = False
    markdown: Annotated[
        bool, Option("--markdown", help="Print the table as Markdown.")
    ] = False
    short: Annotated[
        bool,
        Option(
            "--short",
            help="Print the main numbers only, without R@5, R@10 and corrected forms.",
        ),
    ] = False
    videos: Annotated[
        str | None,
        Option(
            metavar="DIR",
            help="Folder of the test videos, for key frames in the report.",
        ),
    ] = None
    no_report: Annotated[
        bool, Option("--no-report", help="Write no HTML report next to results.json.")
    ] = False


def score(options: Options) -> None:
    """Score checkpoints on the test sets of evaluation YAMLs.

    Prints a table. Adds a row per checkpoint to `<eval.save_path>/results.json`, and writes an
    HTML report next to it. If an evaluation fails, the table of the earlier ones is printed.
    """
    paths = [*(options.yamls or ()), *(options.taskconfig or ())]
    if not paths:
        raise LaunchError("name at least one evaluation YAML.")
    # These imports only report a missing package before scoring begins.
    if not options.no_report:
        import matplotlib  # noqa: F401
    if options.videos:
        import av  # noqa: F401
    # Reports mistakes before scoring begins.
    configs = [load_config(path) for path in paths]
    device = choose_device(options.device)
    from mmpt import reporting
    from mmpt.cli import scoring
    from mmpt.evaluators import render_markdown, render_table

    tables: Tables = []
    notes: list[str] = []
    try:
        for config in configs:
            run = scoring.predict(
                config,
                device=device,
                all_checkpoints=options.all_checkpoints,
                keep_predictions=options.save_predictions,
                allow_missing=options.allow_missing,
                videos=options.videos,
            )
            if not options.no_report:
                path = reporting.write_report(run, scoring.report_path(config))
                logger.info("report: %s", path)
            add_table(tables, [row["checkpoint"] for row in run.rows], run.columns)
            notes += _notes(config, run, options.all_checkpoints)
    finally:
        if tables:
            render = render_markdown if options.markdown else render_table
            texts = [render(columns, is_short=options.short) for _, columns in tables]
            print("\n\n".join(texts), *notes, sep="\n", flush=True)


def add_table(
    tables: Tables, checkpoints: Sequence[str], columns: "Mapping[str, Results]"
) -> None:
    """Adds the results of an evaluation to the tables.

    They are added to the last table if it has the same checkpoints and none of these metrics.
    Otherwise they start a new table.
    """
    if tables:
        last_checkpoints, last_columns = tables[-1]
        common_metrics = last_columns["chance"].keys() & columns["chance"].keys()
        if last_checkpoints == checkpoints and not common_metrics:
            for name, results in columns.items():
                last_columns[name] |= results
            return
    # A copy, because the next evaluations may add rows.
    copy = {name: dict(results) for name, results in columns.items()}
    tables.append((checkpoints, copy))


def _notes(
    config: RunConfig, run: "reporting.EvaluationRun", all_checkpoints: bool
) -> list[str]:
    """Returns the lines below the tables about one evaluation: missing items, best checkpoint."""
    from mmpt.cli import scoring

    notes = []
    num_scored, num_items = len(run.positions), len(run.dataset)
    if num_scored < num_items:
        coverage = f"scored on {num_scored} of {num_items} test items: the others have no features"
        notes += ["", f"{config.path}: {coverage}"]
    if all_checkpoints:
        checkpoint = run.rows[run.best]["checkpoint"]
        best = f"{checkpoint} ({config.metric[0]} {run.best_value:.4f})"
        notes += [
            "",
            f"{config.path}: {scoring.selection_rule(config)}",
            f"best: {best}",
        ]
    return notes


main = Command(score, options=Options, interrupt_message="run it again")


if __name__ == "__main__":
    sys.exit(main())
