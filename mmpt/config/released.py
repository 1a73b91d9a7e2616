"""The settings that a released HTM-Align YAML leaves out: its classes, checkpoint and metric."""

from __future__ import annotations

import copy
import os
from typing import Any

HTM_ALIGN: dict[str, dict[str, Any]] = {
    "dataset": {
        "meta_processor": "How2AlignMetaProcessor",
        "video_processor": "VideoProcessor",
        "text_processor": "How2AlignTextProcessor",
        "aligner": "How2AlignAligner",
        "sliding_window": 8,
        "sliding_window_size": 32,
    },
    "": {"metric": ["How2AlignMetric"], "predictor": "How2AlignPredictor"},
}
"""Section ("" is the top level) -> key -> value in the released script."""


def fill_htm_align(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the YAML with all settings for HTM-Align, and the added ones as `key: value`.

    The checkpoint is `checkpoint_best.pt` in `eval.save_path`. A file without a meta processor also
    gets a batch size of 1, because the released script takes one video at a time.

    Args:
        values: a YAML with includes and overrides. It is not changed. Only evaluations with
            `dataset.anno_path` get settings.
    """
    dataset = values.get("dataset")
    if (
        not isinstance(dataset, dict)
        or dataset.get("split") != "test"
        or dataset.get("anno_path") is None
    ):
        return values, []
    filled = copy.deepcopy(values)
    added: list[str] = []

    def fill(section: dict[str, Any], prefix: str, key: str, value: Any) -> None:
        if section.get(key) is None:
            section[key] = value
            added.append(f"{prefix}{key}: {value}")

    fairseq = _mapping(filled, "fairseq")
    if dataset.get("meta_processor") is None:
        _mapping(fairseq, "dataset")["batch_size"] = 1
        added.append("fairseq.dataset.batch_size: 1")
    for name, keys in HTM_ALIGN.items():
        for key, value in keys.items():
            fill(filled[name] if name else filled, f"{name}." if name else "", key, value)
    save_path = _mapping(filled, "eval").get("save_path")
    if isinstance(save_path, str):
        checkpoint = os.path.join(save_path, "checkpoint_best.pt")
        fill(_mapping(fairseq, "common_eval"), "fairseq.common_eval.", "path", checkpoint)
    return filled, added


def _mapping(parent: Any, key: str) -> dict[str, Any]:
    """Returns the mapping at `key`, which is created if it is missing.

    For a value that is no mapping, a mistake, it returns a mapping that nobody reads.
    """
    if not isinstance(parent, dict):
        return {}
    if parent.get(key) is None:
        parent[key] = {}
    return parent[key] if isinstance(parent[key], dict) else {}
