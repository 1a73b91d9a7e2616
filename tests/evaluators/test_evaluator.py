"""The evaluator's results, and the files that it writes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.config import DatasetConfig
from mmpt.errors import DataError
from mmpt.evaluators import (
    ClipId,
    Evaluator,
    FingerprintingLoader,
    FullVideoRetrievalMetric,
    Predictor,
    RetrievalMetric,
    RetrievalOutputs,
    check_results,
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


class Fixed(Predictor[RetrievalOutputs]):
    output_type = RetrievalOutputs

    def __call__(self, *args: object) -> RetrievalOutputs:
        return OUTPUTS

    def predict(self, *args: object) -> Iterator[dict[str, Any]]:
        raise AssertionError("not to be called")


class Undefined(RetrievalMetric):
    def compute(self, outputs: RetrievalOutputs) -> dict[str, float]:
        return super().compute(outputs) | {"R5": float("nan")}


def evaluator_of(*metrics: Any) -> Evaluator:
    return Evaluator(Fixed(DatasetConfig()), metrics)


def test_every_metric_is_computed_and_the_first_one_decides() -> None:
    evaluator = evaluator_of(RetrievalMetric(), FullVideoRetrievalMetric())
    outputs, results = evaluator(nn.Identity(), [], torch.device("cpu"))
    assert outputs is OUTPUTS
    assert results["RetrievalMetric"]["R1"] == pytest.approx(2 / 3)
    assert results["FullVideoRetrievalMetric"]["R1"] == 1.0
    assert evaluator.best(results) == pytest.approx(2 / 3)
    chance = evaluator.chance(outputs)
    assert chance["RetrievalMetric"]["R1"] == 1 / 3
    assert chance["FullVideoRetrievalMetric"]["R1"] == 1 / 2


def test_an_undefined_number_is_an_error() -> None:
    with pytest.raises(DataError, match=r"`metric: Undefined` is undefined for R5"):
        evaluator_of(Undefined())(nn.Identity(), [], torch.device("cpu"))


def row(fingerprint: str, recall: float) -> dict[str, object]:
    return {
        "checkpoint": "c.pt",
        "fingerprint": fingerprint,
        "metrics": {"RetrievalMetric": {"R1": recall}},
    }


def test_rows_replace_only_rows_of_the_same_checkpoint_and_settings(
    tmp_path: Path,
) -> None:
    path = tmp_path / "results" / "results.json"
    vtt = {"task": "vtt", "lens": (1, 2)}
    write_results(path, [row("aa", 0.1), row("bb", 0.2)], settings=vtt, chance=CHANCE)
    write_results(path, [row("aa", 0.3)], settings={"task": "youcook"}, chance=CHANCE)
    write_results(path, [row("aa", 0.4)], settings=vtt, chance=CHANCE)
    found = [
        (r["fingerprint"], r["settings"]["task"], r["metrics"]["RetrievalMetric"]["R1"])
        for r in read_results(path)
    ]
    assert found == [("bb", "vtt", 0.2), ("aa", "youcook", 0.3), ("aa", "vtt", 0.4)]
    assert read_results(path)[0]["chance"] == CHANCE
    assert [file.name for file in path.parent.glob("[!.]*")] == ["results.json"]


def test_jobs_that_write_at_the_same_time_keep_all_rows(tmp_path: Path) -> None:
    def write(number: int) -> None:
        write_results(path, [row(f"{number}", 0.1)], settings={}, chance=CHANCE)

    path = tmp_path / "results.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    found = sorted(int(row["fingerprint"]) for row in read_results(path))
    assert found == list(range(24))


@pytest.mark.parametrize("content", ['[{"other": 1}]', "{broken"])
def test_another_file_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(
        DataError, match=r"not a results file\. If it is damaged, move it away"
    ):
        check_results(path)
    with pytest.raises(
        DataError, match=r"not a results file\. If it is damaged, move it away"
    ):
        write_results(path, [row("aa", 0.1)], settings={}, chance=CHANCE)
    assert path.read_text() == content


def test_an_unwritable_folder_is_reported_before_scoring(tmp_path: Path) -> None:
    check_results(tmp_path / "new" / "results.json")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"not a writable folder\. Correct `eval.save_path`"
    ):
        check_results(tmp_path / "file" / "results.json")


def test_predictions_are_read_without_pickle(tmp_path: Path) -> None:
    save_predictions(tmp_path / "p.npz", OUTPUTS)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["scores"], OUTPUTS.scores)
        np.testing.assert_array_equal(saved["pooled_video"], OUTPUTS.pooled_video)
        assert saved["video_id"].tolist() == ["a", "a", "b"]
        np.testing.assert_array_equal(saved["end_s"], [4, 9, np.nan])


def test_every_version_of_numpy_saves_only_the_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: dict[str, Any] = {}
    # NumPy before 2.1 stores every keyword argument as an array.
    monkeypatch.setattr(np, "savez", lambda _, **arrays: saved.update(arrays))
    save_predictions(tmp_path / "p.npz", OUTPUTS)
    assert saved.keys() == OUTPUTS.arrays().keys()


class Objects(RetrievalOutputs):
    def arrays(self) -> dict[str, np.ndarray]:
        return {"spans": np.array([(0, 4), None], dtype=object)}


def test_predictions_that_need_pickle_are_an_error(tmp_path: Path) -> None:
    outputs = Objects(**vars(OUTPUTS))
    with pytest.raises(DataError, match="`spans` holds Python objects; convert it"):
        save_predictions(tmp_path / "p.npz", outputs)
    assert not list(tmp_path.iterdir())


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
