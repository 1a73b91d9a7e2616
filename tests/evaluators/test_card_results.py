"""Conversion of the rows of a results file to the results of a model card."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.errors import DataError
from mmpt.evaluators import card_results


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint_best.pt"
    path.write_bytes(b"weights")
    return path


def write(path: Path, checkpoint: Path, **values: Any) -> Path:
    """Writes a results file with a row for the checkpoint and a row for another checkpoint."""
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    row = {"checkpoint": "x.pt", "fingerprint": digest, "task": "test_vtt_zs"}
    row["metrics"] = {"RetrievalMetric": {"R1": 0.123456, "MR": 8.0}}
    other = row | {"fingerprint": "other", "metrics": {"RetrievalMetric": {"R1": 0.5}}}
    path.write_text(json.dumps([other, row | values]))
    return path


def test_numbers_of_the_checkpoint_are_shown_in_percent(checkpoint, tmp_path) -> None:
    path = write(tmp_path / "results.json", checkpoint)
    recall, rank = card_results([path], checkpoint)
    assert (recall.metric_type, recall.metric_value) == ("R1", 12.35)
    assert recall.metric_name == "clip, text to video, R@1"
    assert (rank.metric_type, rank.metric_value) == ("MR", 8.0)
    assert recall.task_type == "retrieval"
    assert recall.dataset_type == "test_vtt_zs"
    assert "zero-shot" in recall.dataset_name


def test_omitted_items_are_counted_in_the_name_of_the_dataset(
    checkpoint, tmp_path
) -> None:
    path = write(tmp_path / "results.json", checkpoint, num_missing=1200, task="mine")
    recall, _ = card_results([path], checkpoint)
    assert recall.dataset_name == "mine (1,200 items left out)"


def test_user_defined_metrics_keep_their_names(checkpoint, tmp_path) -> None:
    metrics = {"MyQAMetric": {"acc": 0.5}}
    path = write(tmp_path / "results.json", checkpoint, metrics=metrics)
    (accuracy,) = card_results([path], checkpoint)
    assert (accuracy.task_type, accuracy.metric_value) == ("my-qa", 50.0)


def test_results_of_another_checkpoint_are_an_error(checkpoint, tmp_path) -> None:
    path = write(tmp_path / "results.json", checkpoint)
    checkpoint.write_bytes(b"other weights")
    with pytest.raises(DataError, match=r"has none of this file\. Score it"):
        card_results([path], checkpoint)
