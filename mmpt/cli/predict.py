"""Score checkpoints on the test set of a YAML; `--jobtype local_predict` runs `python -m mmpt.cli.predict YAML`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mmpt.batch import Split
from mmpt.config import RunConfig, load_config
from mmpt.datasets import collate
from mmpt.errors import EXIT_CODE, ConfigError, UserError
from mmpt.evaluators import (
    METRICS,
    PREDICTORS,
    Evaluator,
    file_fingerprint,
    render_table,
    save_predictions,
    write_results,
)
from mmpt.models.checkpoint import load_weights
from mmpt.tasks import Task
from mmpt.utils.log import get_logger, setup_logging

logger = get_logger(__name__)


def checkpoints_to_score(config: RunConfig, all_checkpoints: bool) -> list[Path]:
    """The checkpoints that the YAML names; with `all_checkpoints` also every one beside its results, as released."""
    named = [Path(path) for path in config.checkpoint_paths]
    found = sorted(Path(config.eval.save_path or ".").glob("checkpoint*.pt")) if all_checkpoints else []
    paths = found + [path for path in named if path not in found]
    if not paths:
        key = "`fairseq.common_eval.path` must name the checkpoint to score, but is missing."
        raise ConfigError(str(config.path), [key])
    return paths


def predict(config: RunConfig, *, device: torch.device, all_checkpoints: bool, keep_predictions: bool) -> str:
    """Score every checkpoint, write `<eval.save_path>/results.json`, and return the table to show.

    Raises:
        UserError: a missing or unfit checkpoint, annotation or feature file.
    """
    task = Task.from_config(config)
    task.check_classes()
    evaluator = Evaluator(
        PREDICTORS.get(config.predictor or "", "predictor")(),
        [METRICS.get(name, "metric")() for name in config.metric],
    )
    paths = checkpoints_to_score(config, all_checkpoints)
    dataset = task.build_dataset(Split.TEST)
    if dataset is None:
        raise ConfigError(str(config.path), ["`dataset.test_path` is required for scoring, but is missing."])
    loader = DataLoader(dataset, config.batch_size, collate_fn=collate, num_workers=config.num_workers)
    results = Path(config.eval.save_path or ".")
    rows: list[dict[str, Any]] = []
    for path in paths:
        model = task.build_model(pretrained=False)
        load_weights(model, path)
        begin = time.monotonic()
        outputs, metrics = evaluator(model.to(device), loader, device)
        logger.info("%s scored in %.1f s", path, time.monotonic() - begin)
        rows.append(
            {
                "checkpoint": str(path),
                "fingerprint": file_fingerprint(path),
                "metrics": metrics,
                "seconds": round(time.monotonic() - begin, 2),
            }
        )
        if keep_predictions:
            save_predictions(results / f"{path.parent.name}-{path.stem}.npz", outputs)
    chance = evaluator.chance(outputs)
    write_results(results / "results.json", rows, settings=config.to_dict(), chance=chance)
    columns = {"chance": chance} | {name: row["metrics"] for name, row in zip(short_names(paths), rows, strict=True)}
    return render_table(columns)


def short_names(paths: list[Path]) -> list[str]:
    """Column titles: the checkpoint's folder where these differ, else the file's name, else the whole path."""
    for name in (lambda path: path.parent.name, lambda path: path.stem, str):
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m mmpt.cli.predict", description="Score checkpoints on a test set.")
    parser.add_argument("taskconfig", help="evaluation YAML")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the first GPU, else the CPU)")
    parser.add_argument("--all-checkpoints", action="store_true", help="score every checkpoint in eval.save_path too")
    parser.add_argument("--save-predictions", action="store_true", help="keep scores and vectors as .npz")
    args = parser.parse_args(argv)
    setup_logging()
    try:
        device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        table = predict(
            load_config(args.taskconfig),
            device=device,
            all_checkpoints=args.all_checkpoints,
            keep_predictions=args.save_predictions,
        )
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return EXIT_CODE
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
