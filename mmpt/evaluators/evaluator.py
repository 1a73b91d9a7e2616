"""Evaluates a checkpoint on a test set, and keeps the results as rows of a JSON file."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from mmpt.batch import ClipBatch
from mmpt.errors import DataError
from mmpt.evaluators.base import Metric, Outputs, Predictor, Results
from mmpt.utils.io import atomic_write, read_json, write_json
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger
from mmpt.utils.validation import validate

logger = get_logger(__name__)


class Evaluator:
    """A predictor, which runs once per checkpoint, and the metrics of its outputs.

    Args:
        predictor: makes the outputs.
        metrics: at least one, each for these outputs. The first decides which checkpoint is best.
    """

    def __init__(self, predictor: Predictor[Any], metrics: Sequence[Metric[Any]]):
        self.predictor = predictor
        self.metrics = {type(metric).__name__: metric for metric in metrics}

    def __call__(
        self, model: nn.Module, loader: Any, device: torch.device
    ) -> tuple[Outputs, Results]:
        """Returns what `model` predicts on the batches of `loader`, and the numbers.

        Raises:
            DataError: a number is undefined, because the test set has nothing that it counts.
        """
        outputs = self.predictor(model, loader, device)
        results = {}
        for name, metric in self.metrics.items():
            numbers = metric.compute(outputs)
            logger.info("%s: %s", name, metric.summary(numbers))
            undefined = [key for key, value in numbers.items() if math.isnan(value)]
            if undefined:
                raise DataError(
                    f"`metric: {name}` is undefined for {', '.join(undefined)}: at least one "
                    "scored item must count, but none does. Annotations and features may not "
                    "belong together; check the files under `dataset`."
                )
            results[name] = numbers
        return outputs, results

    def chance(self, outputs: Outputs) -> Results:
        """Returns the expected numbers of random scores on the test set of `outputs`."""
        return {name: metric.chance(outputs) for name, metric in self.metrics.items()}

    def best(self, results: Results) -> float:
        """Returns the value that checkpoints are compared by, which is one of the first metric."""
        first, *_ = self.metrics.values()
        return first.deciding_value(results)


class FingerprintingLoader:
    """A loader that passes batches on and hashes their tensors, key by key.

    The hash identifies the data that a model was tested on. It does not depend on the batch size.
    """

    def __init__(self, loader: Any):
        self.loader = loader
        self._hashes: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[ClipBatch]:
        self._hashes = {}
        for batch in self.loader:
            for name, value in batch.items():
                if isinstance(value, torch.Tensor):
                    tensor_hash = self._hashes.setdefault(name, hashlib.sha256())
                    tensor_hash.update(value.contiguous().numpy())
            yield batch

    def fingerprint(self) -> str:
        """Returns the SHA-256, in hex, of all tensors of the last pass."""
        whole = hashlib.sha256()
        for name, tensor_hash in sorted(self._hashes.items()):
            line = f"{name} {tensor_hash.hexdigest()}\n"
            whole.update(line.encode())
        return whole.hexdigest()


def check_results(path: str | Path) -> None:
    """Checks before scoring that `write_results` will be able to write.

    Raises:
        DataError: the file is not a results file, or nothing can be written there.
    """
    path = Path(path)
    if path.exists():
        read_results(path)
    folder = next(parent for parent in path.parents if parent.exists())
    writable = folder.is_dir() and os.access(folder, os.W_OK)
    if not writable:
        raise DataError(
            f"{path}: cannot be written, since {folder} is not a writable folder. Correct "
            "`eval.save_path`."
        )


def write_results(
    path: str | Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    settings: Mapping[str, Any],
    chance: Results,
) -> None:
    """Adds rows to the JSON list at `path`.

    A row replaces an earlier one of the same checkpoint bytes and settings.

    Args:
        rows: one per checkpoint, with at least checkpoint (its path), fingerprint (SHA-256 of the
            file) and metrics.
        settings: plain values that describe the evaluation, such as `RunConfig.to_dict()`; kept in
            every row.
        chance: expected results of random scores; kept in every row.
    Raises:
        DataError: the file is not a results file.
    """
    path = Path(path)
    # Convert the settings as JSON does, to compare them with settings in the file.
    plain = json.loads(json.dumps(settings))
    scored = [row["fingerprint"] for row in rows]
    kept = []
    with exclusive(path.with_name(f".{path.name}.lock"), "adding rows"):
        old = read_results(path) if path.exists() else []
        for row in old:
            is_scored = row["fingerprint"] in scored
            replaced = is_scored and row.get("settings") == plain
            if not replaced:
                kept.append(row)
        new = [{**row, "settings": plain, "chance": chance} for row in rows]
        write_json(path, kept + new)


class _Row(BaseModel):
    """The part of a row of a results file that is read again."""

    checkpoint: str
    fingerprint: str
    task: str = ""
    metrics: Results
    chance: Results = {}


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Returns the rows of a results file.

    Raises:
        DataError: the file is not a results file.
    """
    try:
        rows: list[dict[str, Any]] = read_json(path)
        validate(list[_Row], rows, path, "")
    except DataError as err:
        raise DataError(
            f"{path}: not a results file. If it is damaged, move it away and score again. ({err})"
        ) from None
    return rows


def save_predictions(path: str | Path, outputs: Outputs) -> None:
    """Writes the plain arrays of `outputs` as an .npz.

    Raises:
        DataError: an array holds Python objects, which could only be loaded by running code.
    """
    arrays: dict[str, Any] = outputs.arrays()
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise DataError(
                f"`{type(outputs).__name__}.arrays`: each array must hold numbers or text, but "
                f"`{name}` holds Python objects; convert it, or leave it out."
            )
    with atomic_write(path, "wb") as file:
        # NumPy before 2.1 has no argument `allow_pickle`, and would store it as an array.
        np.savez(file, **arrays)
