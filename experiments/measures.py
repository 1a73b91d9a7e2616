"""The commands that score a run, and the numbers that they give.

A run is scored by three of the demo's evaluations: clips and whole videos, whole videos with their
background, and alignment. DTW and OTAM with a calibrated constant are added (offsets.py).
"""

import json
from pathlib import Path
from typing import Any

from experiments.offsets import METHODS, calibrated, offset_curve, read_predictions
from mmpt.config.yaml_files import read_yaml, write_yaml

CHECKPOINT = "checkpoint_last.pt"
"""The checkpoint that is scored, and from which other runs start. It is not the one with the lowest
loss, so that all runs of an experiment are compared after the same number of updates. The loss on
noisy validation videos may be lowest in the middle of a run."""
EVALUATIONS = {
    "clips": "projects/retri/norton/test_how2_demo_zs.yaml",
    "background": "projects/retri/norton/test_how2_demo_bg_zs.yaml",
    "alignment": "projects/retri/norton/test_how2_demo_align_zs.yaml",
}
"""Folder of the results -> evaluation."""
WITH_PREDICTIONS = {"clips": "Calibrated", "background": "CalibratedBG"}
"""Folder of the results -> name of the metrics with a calibrated constant."""


def scoring_command(folder: Path, data: Path) -> list[str]:
    """Writes the evaluation YAMLs of a run, and returns the arguments of Python that score it.

    Args:
        folder: folder of the run, with its checkpoints.
        data: folder of the corpus.
    """
    paths = []
    for name, shipped in EVALUATIONS.items():
        text = json.dumps(read_yaml(shipped)).replace("data/demo", data.as_posix())
        values = json.loads(text)
        values["fairseq"]["common_eval"]["path"] = str(folder / CHECKPOINT)
        values["eval"]["save_path"] = str(folder / "scores" / name)
        path = folder / "scores" / f"{name}.yaml"
        write_yaml(path, values)
        paths.append(str(path))
    options = ["--save-predictions", "--no-report", "--device", "cpu"]
    return ["-m", "mmpt", "predict", *paths, *options]


def read_measures(folder: Path, *, with_curves: bool) -> dict[str, Any]:
    """Returns the metrics of a run that was scored.

    Args:
        with_curves: also calibrate all forms of DTW and OTAM, and return their curves over the
            constant. Otherwise only the released DTW is calibrated.
    """
    metrics: dict[str, dict[str, float]] = {}
    curves = {}
    for name in EVALUATIONS:
        scores = folder / "scores" / name
        results = json.loads((scores / "results.json").read_text())
        metrics |= results[-1]["metrics"]
        for path in scores.glob("*.npz"):
            if name in WITH_PREDICTIONS:
                predictions = read_predictions(path)
                methods = tuple(METHODS) if with_curves else ("DTW",)
                metrics[WITH_PREDICTIONS[name]] = calibrated(predictions, methods)
                if with_curves:
                    curves[name] = offset_curve(predictions)
    return {"metrics": metrics, "curves": curves}


def remove_large_files(folder: Path, *, keep_checkpoint: bool) -> None:
    """Removes the predictions and checkpoints of a run whose measures are recorded.

    Args:
        keep_checkpoint: keep `CHECKPOINT`, from which other runs start.
    """
    for path in [*folder.rglob("*.npz"), *folder.glob("checkpoint*.pt")]:
        if not (keep_checkpoint and path.name == CHECKPOINT):
            path.unlink()
