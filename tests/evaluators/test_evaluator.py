"""The evaluator's results, and the files it leaves."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.config import DatasetConfig
from mmpt.errors import CheckpointError, DataError
from mmpt.evaluators import (
    ClipId,
    Evaluator,
    FingerprintingLoader,
    FullVideoRetrievalMetric,
    Predictor,
    RetrievalMetric,
    RetrievalOutputs,
    file_fingerprint,
    read_results,
    save_predictions,
    write_results,
)

OUTPUTS = RetrievalOutputs(
    pooled_text=np.array([[3, 0, 0], [4, 1, 0], [0, 0, 1]], dtype=np.float32),
    pooled_video=np.eye(3, dtype=np.float32),
    clips=[ClipId("a", 0, 4), ClipId("a", 5, 9), ClipId("b")],
)
CHANCE = {"RetrievalMetric": {"R1": 1 / 3}}


def test_every_metric_is_computed_from_one_prediction() -> None:
    calls = []

    class Recorder(Predictor[RetrievalOutputs]):
        makes = RetrievalOutputs

        def __call__(self, *args: object) -> RetrievalOutputs:
            calls.append(args)
            return OUTPUTS

    evaluator = Evaluator(
        Recorder(DatasetConfig()), [RetrievalMetric(), FullVideoRetrievalMetric()]
    )
    outputs, results = evaluator(nn.Identity(), [], torch.device("cpu"))
    assert outputs is OUTPUTS
    assert len(calls) == 1
    assert results["RetrievalMetric"]["R1"] == pytest.approx(2 / 3)
    assert results["FullVideoRetrievalMetric"]["R1"] == 1.0
    assert evaluator.best(results) == pytest.approx(2 / 3)
    chance = evaluator.chance(outputs)
    assert (chance["RetrievalMetric"]["R1"], chance["FullVideoRetrievalMetric"]["R1"]) == (
        1 / 3,
        1 / 2,
    )


def row(fingerprint: str, recall: float) -> dict[str, object]:
    return {
        "checkpoint": "c.pt",
        "fingerprint": fingerprint,
        "metrics": {"RetrievalMetric": {"R1": recall}},
    }


def test_rows_replace_those_of_the_same_checkpoint_and_settings_only(tmp_path: Path) -> None:
    path = tmp_path / "results" / "results.json"
    write_results(
        path,
        [row("aa", 0.1), row("bb", 0.2)],
        settings={"task": "vtt", "lens": (1, 2)},
        chance=CHANCE,
    )
    write_results(path, [row("aa", 0.3)], settings={"task": "youcook"}, chance=CHANCE)
    write_results(path, [row("aa", 0.4)], settings={"task": "vtt", "lens": (1, 2)}, chance=CHANCE)
    found = [
        (r["fingerprint"], r["settings"]["task"], r["metrics"]["RetrievalMetric"]["R1"])
        for r in read_results(path)
    ]
    assert found == [("bb", "vtt", 0.2), ("aa", "youcook", 0.3), ("aa", "vtt", 0.4)]
    assert read_results(path)[0]["chance"] == CHANCE
    assert [file.name for file in path.parent.glob("[!.]*")] == ["results.json"]


def test_jobs_that_write_at_once_keep_each_others_rows(tmp_path: Path) -> None:
    def write(number: int) -> None:
        write_results(
            tmp_path / "results.json", [row(f"{number}", 0.1)], settings={}, chance=CHANCE
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    assert {found["fingerprint"] for found in read_results(tmp_path / "results.json")} == set(
        map(str, range(24))
    )


def test_another_json_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"other": 1}]))
    with pytest.raises(DataError, match="not a results file"):
        write_results(path, [row("aa", 0.1)], settings={}, chance=CHANCE)
    assert json.loads(path.read_text()) == [{"other": 1}]


def test_predictions_come_back_without_pickle(tmp_path: Path) -> None:
    save_predictions(tmp_path / "p.npz", OUTPUTS)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["scores"], OUTPUTS.scores)
        np.testing.assert_array_equal(saved["pooled_video"], OUTPUTS.pooled_video)
        assert saved["video_id"].tolist() == ["a", "a", "b"]
        np.testing.assert_array_equal(saved["end_s"], [4, 9, np.nan])


def test_fingerprint_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_best.pt"
    path.write_bytes(b"weights" * 1000)
    assert file_fingerprint(path) == hashlib.sha256(b"weights" * 1000).hexdigest()
    with pytest.raises(CheckpointError, match="No such file"):
        file_fingerprint(tmp_path / "absent.pt")


def test_the_data_fingerprint_depends_on_the_data_and_not_on_the_batches() -> None:
    def fingerprint(rows: torch.Tensor, batch_size: int) -> str:
        loader = FingerprintingLoader(
            [{"caps": part, "video_id": ["a"]} for part in rows.split(batch_size)]
        )
        assert len(loader) == len(list(loader))
        return loader.fingerprint()

    rows = torch.arange(12).reshape(6, 2)
    assert fingerprint(rows, 2) == fingerprint(rows, 4) == fingerprint(rows, 2)
    assert fingerprint(rows, 2) != fingerprint(rows.flip(0), 2)
