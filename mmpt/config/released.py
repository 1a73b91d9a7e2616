"""The settings that a released HTM-Align YAML leaves out: its classes, checkpoint and metric."""

import os
from typing import Any

from omegaconf import OmegaConf

HTM_ALIGN: dict[str, Any] = {
    "dataset.meta_processor": "How2AlignMetaProcessor",
    "dataset.video_processor": "VideoProcessor",
    "dataset.text_processor": "How2AlignTextProcessor",
    "dataset.aligner": "How2AlignAligner",
    "dataset.sliding_window": 8,
    "dataset.sliding_window_size": 32,
    "metric": ["How2AlignMetric"],
    "predictor": "How2AlignPredictor",
}
"""Key -> value in the released script."""
BATCH_SIZE = "fairseq.dataset.batch_size"


def fill_htm_align(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the YAML with all settings for HTM-Align, and the added ones as `key: value`.

    The checkpoint is `checkpoint_best.pt` in `eval.save_path`. A file without a meta processor also
    gets a batch size of 1, because the released script takes one video at a time.

    Args:
        values: a YAML with includes and overrides. It is not changed. Only evaluations with
            `dataset.anno_path` get settings.
    """
    dataset, result = values.get("dataset"), values.get("eval")
    if not isinstance(dataset, dict) or dataset.get("split") != "test":
        return values, []
    if dataset.get("anno_path") is None:
        return values, []
    settings = dict(HTM_ALIGN)
    if isinstance(result, dict) and isinstance(result.get("save_path"), str):
        checkpoint = os.path.join(result["save_path"], "checkpoint_best.pt")
        settings["fairseq.common_eval.path"] = checkpoint
    added = []
    given, missing = OmegaConf.create(values), OmegaConf.create()
    if dataset.get("meta_processor") is None and OmegaConf.select(given, BATCH_SIZE) is not None:
        OmegaConf.update(given, BATCH_SIZE, 1)
        added.append(f"{BATCH_SIZE}: 1")
    for key, value in settings.items():
        if OmegaConf.select(given, key) is None:
            OmegaConf.update(missing, key, value)
            added.append(f"{key}: {value}")
    # A section of `given` that is no mapping stays as it is, so that the loader reports it.
    whole: Any = OmegaConf.to_container(OmegaConf.merge(missing, given))
    return whole, added
