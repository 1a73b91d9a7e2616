"""Score checkpoints on the test set of a YAML; `--jobtype local_predict` runs `python -m mmpt.cli.predict YAML`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from mmpt.batch import Split
from mmpt.cli.devices import choose_device
from mmpt.config import RunConfig, load_config
from mmpt.datasets import MMDataset, collate
from mmpt.errors import EXIT_CODE, INTERRUPTED, ConfigError, DataError, UserError, message_of
from mmpt.evaluators import (
    METRICS,
    PREDICTORS,
    Evaluator,
    FingerprintingLoader,
    Results,
    file_fingerprint,
    render_markdown,
    render_table,
    save_predictions,
    write_results,
)
from mmpt.models.checkpoint import MOST_LISTED, load_weights
from mmpt.tasks import Task
from mmpt.utils.log import get_logger, setup_logging

logger = get_logger(__name__)


class Scores(NamedTuple):
    """What was measured, and which checkpoint is best."""

    columns: dict[str, Results]
    """`chance` and a column per checkpoint, in the order of scoring."""
    best: Path
    """The first of those with the greatest number."""
    best_value: float
    """The first number of the first metric."""
    coverage: str
    """How much of the test set was scored, or nothing if all of it was."""


def checkpoints_to_score(config: RunConfig, all_checkpoints: bool) -> list[Path]:
    """The checkpoints that the YAML names; with `all_checkpoints` those of `selection_rule`, as released."""
    named = [Path(path) for path in config.checkpoint_paths]
    found = sorted(_search_folder(config).glob("checkpoint*.pt")) if all_checkpoints else []
    known = {path.resolve() for path in found}
    paths = found + [path for path in named if path.resolve() not in known]
    if not paths:
        key = "`fairseq.common_eval.path` must name the checkpoint to score, but is missing."
        raise ConfigError(str(config.path), [key])
    return paths


def selection_rule(config: RunConfig) -> str:
    """Say what `--all-checkpoints` scores and how the best is chosen."""
    return (
        f"every checkpoint*.pt in {_search_folder(config)} (the folder above `eval.save_path`) in order of name, then "
        "those that `fairseq.common_eval.path` names; the best is chosen on this test set itself, as in the release"
    )


def _search_folder(config: RunConfig) -> Path:
    return Path(os.path.dirname(config.eval.save_path or ""))  # of `runs/x/`, unlike Path.parent, this is runs/x


def predict(
    config: RunConfig,
    *,
    device: torch.device,
    all_checkpoints: bool = False,
    keep_predictions: bool = False,
    allow_missing: bool = False,
) -> Scores:
    """Score every checkpoint and write `<eval.save_path>/results.json`.

    Args:
        all_checkpoints: also score what `selection_rule` says.
        keep_predictions: write what each checkpoint predicts beside the results.
        allow_missing: score the videos that have features when some have none.
    Raises:
        UserError: a missing or unfit checkpoint, annotation or feature file.
    """
    if not config.is_test:
        raise ConfigError(
            str(config.path), ["a training config cannot be scored; take one with `dataset.split: test`."]
        )
    task = Task.from_config(config, seed=config.seed)
    evaluator = Evaluator(
        PREDICTORS.get(config.predictor or "", "predictor")(config.dataset),
        [METRICS.get(name, "metric")() for name in config.metric],
    )
    paths = checkpoints_to_score(config, all_checkpoints)
    dataset = _test_dataset(task)
    positions = _positions_to_score(dataset, allow_missing)
    loader = FingerprintingLoader(_loader(Subset(dataset, positions), config, pin_memory=device.type == "cuda"))
    results = Path(config.eval.save_path or ".")
    rows: list[dict[str, Any]] = []
    for path in paths:
        model = task.build_model(pretrained=False)
        load_weights(model, path)
        begin = time.monotonic()
        outputs, metrics = evaluator(model.to(device), loader, device)
        seconds = time.monotonic() - begin
        logger.info("%s scored in %.1f s", path, seconds)
        rows.append(
            {
                "checkpoint": str(path),
                "fingerprint": file_fingerprint(path),
                "data_fingerprint": loader.fingerprint(),
                "num_items": len(positions),
                "num_missing": len(dataset) - len(positions),
                "metrics": metrics,
                "seconds": round(seconds, 2),
            }
        )
        if keep_predictions:
            save_predictions(results / f"{path.parent.name}-{path.stem}.npz", outputs)
    chance = evaluator.chance(outputs)
    write_results(results / "results.json", rows, settings=config.to_dict(), chance=chance)
    values = [evaluator.best(row["metrics"]) for row in rows]
    columns = dict(zip(short_names(paths), (row["metrics"] for row in rows), strict=True))
    num_items, num_scored = len(dataset), len(positions)
    coverage = f"scored on {num_scored} of {num_items} test items: the others have no features"
    return Scores(
        {"chance": chance, **columns},
        paths[values.index(max(values))],
        max(values),
        coverage if num_scored < num_items else "",
    )


def _test_dataset(task: Task) -> MMDataset:
    dataset = task.build_dataset(Split.TEST)
    if dataset is None:
        raise ConfigError(str(task.config.path), ["`dataset.test_path` is required for scoring, but is missing."])
    return dataset


def _positions_to_score(dataset: MMDataset, allow_missing: bool) -> list[int]:
    """Return the items that have features; DataError when some have none and that is not allowed, or when none has."""
    missing = dataset.without_features()
    positions = [index for index in range(len(dataset)) if index not in missing]
    if missing and not (allow_missing and positions):
        videos = list(dict.fromkeys(key if isinstance(key, str) else str(key[0]) for key in missing.values()))
        listed = ", ".join(videos[:MOST_LISTED]) + (", ..." if len(videos) > MOST_LISTED else "")
        raise DataError(
            f"{dataset.video.need_str('vfeat_dir')}: {len(missing)} of {len(dataset)} test items have no features "
            f"({len(videos)} videos: {listed}). Extract them"
            + (", or score the rest with --allow-missing." if positions else " or correct `dataset.vfeat_dir`.")
        )
    return positions


def _loader(dataset: Dataset, config: RunConfig, pin_memory: bool) -> DataLoader:
    return DataLoader(
        dataset, config.batch_size, collate_fn=collate, num_workers=config.num_workers, pin_memory=pin_memory
    )


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
    parser.add_argument(
        "--all-checkpoints", action="store_true", help="score every checkpoint*.pt in the folder above eval.save_path"
    )
    parser.add_argument("--save-predictions", action="store_true", help="keep scores and vectors as .npz")
    parser.add_argument(
        "--allow-missing", action="store_true", help="score the videos that have features when some have none"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown, to paste into a README")
    args = parser.parse_args(argv)
    setup_logging()
    try:
        config = load_config(args.taskconfig)
        scores = predict(
            config,
            device=choose_device(args.device),
            all_checkpoints=args.all_checkpoints,
            keep_predictions=args.save_predictions,
            allow_missing=args.allow_missing,
        )
    except UserError as err:
        print(f"error: {message_of(err)}", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        print("interrupted; run it again", file=sys.stderr)
        return INTERRUPTED
    print((render_markdown if args.markdown else render_table)(scores.columns))
    if scores.coverage:
        print(f"\n{scores.coverage}")
    if args.all_checkpoints:
        print(f"\nscored: {selection_rule(config)}\nbest: {scores.best} ({config.metric[0]} {scores.best_value:.4f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
