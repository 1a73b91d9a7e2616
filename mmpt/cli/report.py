"""`mmpt report`: writes the HTML report of a training run, or rewrites that of an evaluation."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from mmpt.cli.main import Command, Device, choose_device
from mmpt.config import RunConfig, load_config
from mmpt.config.yaml_files import YAML_SUFFIXES
from mmpt.errors import DataError, LaunchError


def report(
    yaml: Annotated[
        str,
        Argument(
            metavar="RUN|YAML",
            help="A training folder (`save_dir`), or an evaluation YAML.",
        ),
    ],
    results: Annotated[
        list[str] | None,
        Argument(
            metavar="RESULTS",
            help="Results files, or folders that contain one, with scores of the run's "
            "checkpoints. Results files in the training folder are always included.",
        ),
    ] = None,
    *,
    videos: Annotated[
        str | None,
        Option(metavar="DIR", help="Folder of the test videos, for key frames."),
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="File to write. Default: in the training folder, or next to results.json.",
        ),
    ] = None,
    device: Device = None,
) -> None:
    """Write the HTML report of a training run, or rewrite that of an evaluation with key frames.

    The report of a training run has its curves, speed, settings and scores. The run may be in
    progress. Prints a summary and the path of the report.

    The numbers of an evaluation come from results.json. The best checkpoint is run again for the
    pictures. Prints the path of the report.
    """
    if Path(yaml).is_dir():
        if videos is not None or device is not None:
            raise LaunchError(
                f"{yaml} is a folder, and `--videos` and `--device` belong to the report of an "
                "evaluation; leave them out, or name an evaluation YAML."
            )
        # Deferred, like the imports below, so that --help and argument errors do not wait for it.
        from mmpt.cli import training_runs

        training_runs.report_training_run(yaml, results or [], out)
        return
    if Path(yaml).suffix not in YAML_SUFFIXES:
        raise LaunchError(
            f"{yaml} must be a training folder or an evaluation YAML, but there is no such folder, "
            "and the name does not end in .yaml. The training folder is "
            "`fairseq.checkpoint.save_dir` of the training YAML."
        )
    if results:
        raise LaunchError(
            f"{yaml} is not a training folder, so {results[0]} cannot be used; name one evaluation "
            "YAML, or a training folder and results files."
        )
    report_evaluation(yaml, videos, out, device)


def report_evaluation(
    yaml: str, videos: str | None, out: Path | None, device: str | None
) -> None:
    """Writes the report of an evaluation that has been scored, and prints its path."""
    config = load_config(yaml)
    if not config.is_test:
        raise LaunchError(
            f"{yaml} is a training YAML. Name the training folder: mmpt report {config.save_dir}"
        )
    from mmpt.cli import scoring
    from mmpt.evaluators import METRICS
    from mmpt.evaluators.table import checkpoint_names
    from mmpt.reporting import write_report

    results = scoring.results_folder(config) / "results.json"
    if not results.exists():
        raise DataError(
            f"{results}: no such file. Score the checkpoint first: mmpt predict {yaml}"
        )
    rows = _rows_of(config, results)
    metric = METRICS.get(config.metric[0], "metric")()
    values = [metric.deciding_value(row["metrics"]) for row in rows]
    best_value = max(values)
    best = values.index(best_value)
    best_row = rows[best]
    checkpoint = best_row["checkpoint"]
    run = scoring.predict(
        config.with_option("common_eval", "path", [checkpoint]),
        device=choose_device(device),
        allow_missing=bool(best_row["num_missing"]),
        videos=videos,
        keep_results=False,
    )
    # The pictures must belong to the numbers, so neither the weights nor the data may have changed.
    for key, what in (
        ("fingerprint", checkpoint),
        ("data_fingerprint", "the test set"),
    ):
        if run.rows[0][key] != best_row[key]:
            raise DataError(
                f"{results}: {what} has changed since it was scored. Score it again."
            )
    names = checkpoint_names([Path(row["checkpoint"]) for row in rows])
    run = replace(
        run, config=config, rows=rows, names=names, best=best, best_value=best_value
    )
    print(write_report(run, out or scoring.report_path(config)))


def _rows_of(config: RunConfig, results: Path) -> list[dict[str, Any]]:
    """Returns the rows of a results file that were scored with the settings of `config`.

    Raises:
        DataError: there is none.
    """
    from mmpt.evaluators import read_results

    # Tuples become lists, as in the file.
    settings = json.loads(json.dumps(config.to_dict()))
    rows = [row for row in read_results(results) if row.get("settings") == settings]
    if not rows:
        raise DataError(
            f"{results}: must hold a row with the settings of {config.path}, but holds none. Score "
            f"it first: mmpt predict {config.path}"
        )
    return rows


main = Command(
    report, interrupt_message="nothing was written; run the same command again"
)


if __name__ == "__main__":
    sys.exit(main())
