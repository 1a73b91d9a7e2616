"""Write the report of a scoring anew, for example with key frames: `python -m mmpt.cli.report YAML --videos DIR`.

The numbers are those of results.json; the best checkpoint predicts again, for the pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmpt.cli.devices import choose_device
from mmpt.cli.scoring import predict, report_path, short_names
from mmpt.config import RunConfig, load_config
from mmpt.errors import DataError
from mmpt.evaluators import METRICS, read_results
from mmpt.reporting import Run, write_report
from mmpt.utils.command import run_command


def scored_run(config: RunConfig, device: torch.device, videos: str | None) -> Run:
    """Return what the report needs, from the results file and one more prediction by its best checkpoint.

    Raises:
        DataError: the YAML was not scored as it is now, or the checkpoint or the test set has changed since.
    """
    results = Path(config.eval.save_path or ".") / "results.json"
    settings = json.loads(json.dumps(config.to_dict()))
    rows = [row for row in read_results(results) if row.get("settings") == settings]
    if not rows:
        raise DataError(
            f"{results}: must hold a row with the settings of {config.path}, but holds none. Score it first: "
            f"python -m mmpt.cli.predict {config.path}"
        )
    metric = METRICS.get(config.metric[0], "metric")()
    values = [metric.best(row["metrics"][type(metric).__name__]) for row in rows]
    best = values.index(max(values))
    only_best = config.with_option("common_eval", "path", [rows[best]["checkpoint"]])
    allow_missing = bool(rows[best]["num_missing"])
    run = predict(only_best, device=device, allow_missing=allow_missing, videos=videos, keep_results=False)
    _check_same(run.rows[0], rows[best], results)
    names = short_names([Path(row["checkpoint"]) for row in rows])
    return replace(run, config=config, rows=rows, names=names, best=best, best_value=values[best])


def _check_same(new: dict[str, Any], old: dict[str, Any], results: Path) -> None:
    for key, what in (("fingerprint", old["checkpoint"]), ("data_fingerprint", "the test set")):
        if new[key] != old[key]:
            raise DataError(f"{results}: {what} has changed since it was scored. Score it again.")


def report(args: argparse.Namespace) -> None:
    """Write the report that the arguments ask for, and say where it is."""
    config = load_config(args.taskconfig)
    run = scored_run(config, choose_device(args.device), args.videos)
    print(write_report(run, args.out or report_path(config)))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mmpt.cli.report", description="Write the HTML report of an evaluation that was scored."
    )
    parser.add_argument("taskconfig", help="evaluation YAML")
    parser.add_argument("--videos", metavar="DIR", help="the test set's videos, for key frames")
    parser.add_argument("--out", metavar="FILE", type=Path, help="where to write (default: beside results.json)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the first GPU, else the CPU)")
    args = parser.parse_args(argv)
    return run_command(lambda: report(args), stopped="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
