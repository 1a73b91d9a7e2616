"""`mmpt compare`: prints runs next to the numbers of the papers, and compares training runs.

Results are grouped by the evaluation YAML that produced them. Zero-shot and fine-tuned results are
therefore never in the same table. Training runs are also shown in an HTML page.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mmpt.cli import training_runs
from mmpt.cli.main import Command
from mmpt.cli.result_tables import RESULTS, as_text, group_rows, read_rows
from mmpt.errors import LaunchError


def compare(
    runs: Annotated[
        list[str],
        Argument(
            metavar="RUN",
            help=f"Results files, folders that contain a {RESULTS}, or training "
            "folders (`save_dir`).",
        ),
    ],
    *,
    markdown: Annotated[
        bool, Option("--markdown", help="Print tables as Markdown.")
    ] = False,
    to_json: Annotated[
        bool, Option("--json", help="Print everything as JSON.")
    ] = False,
    out: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help=f"HTML page about the training runs. Default: {training_runs.COMPARISON} in the "
            "current folder. Without training runs, there is no page.",
        ),
    ] = None,
) -> None:
    """Compare runs with each other and with the numbers that the papers report.

    Prints one table per benchmark and setting (zero-shot or fine-tuned), and notes about results
    that are not comparable. Training runs get a table of losses and speed, a table of the settings
    in which they differ, and an HTML page with their curves. Training runs without metrics are left
    out. The results files in their folders are included.
    """
    if markdown and to_json:
        raise LaunchError(
            "`--markdown` and `--json` are mutually exclusive; give one of them."
        )
    folders = [run for run in runs if training_runs.is_training_folder(run)]
    if out is not None and not folders:
        raise LaunchError(
            f"`--out` names the page about training runs, but {', '.join(runs)} holds none; leave "
            "it out, or name a training folder."
        )
    read = training_runs.read_training_runs(folders)
    paths = _results_paths(runs, folders)
    groups = group_rows(read_rows(paths, may_be_empty=bool(read)))
    page = out or Path(training_runs.COMPARISON)
    if read:
        training_runs.write_page(read, groups, page)
    if to_json:
        added = [training_runs.as_group(read, page)] if read else []
        print(json.dumps([*groups, *added], ensure_ascii=False, indent=1))
        return
    texts = [as_text(group, markdown=markdown) for group in groups]
    if read:
        texts += [training_runs.as_text(read, markdown=markdown), str(page)]
    print("\n\n".join(texts))


def _results_paths(runs: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Returns the results files: those that are named, and those in training folders."""
    paths = []
    for run in runs:
        paths += training_runs.find_results(run) if run in folders else [run]
    return paths


main = Command(compare, interrupt_message="run it again")


if __name__ == "__main__":
    sys.exit(main())
