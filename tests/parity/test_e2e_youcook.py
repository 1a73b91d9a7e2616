"""YouCook2 through the scoring command, with the shipped YAMLs, against what the original saved and
printed.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.batch import Split
from mmpt.cli.scoring import predict
from mmpt.config import DatasetConfig
from mmpt.config.yaml_files import read_yaml
from mmpt.endtasks.youcook import YoucookFullVideoBGAligner
from mmpt.errors import DataError
from mmpt.evaluators import METRICS
from tests.parity.e2e_data import (
    GOLDEN,
    ROOT,
    e2e_config,
    make_e2e_files,
    predicted,
    printed,
    recorded,
    recorded_settings,
    write_hash_checkpoint,
)

ZS, FULL, BG = "test_youcook_zs", "test_youcook_fullvideo_zs", "test_youcook_fullvideo_bg_zs"
TITLES = ("Caption Average:", "DTW:", "OTAM")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_e2e_files(tmp_path_factory.mktemp("e2e"))


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def score(task: str, folder: Path, *more: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Run the command's core; return the predictions and the numbers. One record of the file has no
    features.
    """
    config = e2e_config(task, folder, "norton", *more)
    write_hash_checkpoint(config)
    predict(config, device=torch.device("cpu"), keep_predictions=True, allow_missing=True)
    rows = json.loads((folder / task / "results.json").read_text())
    return predicted(folder / task), rows[-1]["metrics"][config.metric[0]]


@pytest.mark.parametrize("task", [ZS, FULL, BG])
def test_the_yaml_has_the_recorded_settings(task: str) -> None:
    ours = read_yaml(f"projects/retri/norton/{task}.yaml")
    assert ours["fairseq"].pop("common_eval") == {"path": "runs/retri/norton/checkpoint_best.pt"}
    assert ours.pop("eval")["save_path"] in ("runs/retri/norton/", "runs/retri/norton/youcook/")
    assert ours == recorded_settings(task)


def test_clip_retrieval(folder: Path) -> None:
    arrays, numbers = score(ZS, folder)
    np.testing.assert_allclose(arrays["scores"], recorded(ZS)["merged"], atol=1e-4)  # 2.1e-5 of 26
    assert METRICS.get("RetrievalMetric", "metric")().summary(numbers) == printed(ZS)[-1]


def test_full_videos_without_background(folder: Path) -> None:
    arrays, numbers = score(FULL, folder)
    # 2.1e-5 of 26.
    np.testing.assert_allclose(arrays["scores"], recorded(FULL)["merged"], atol=1e-4)
    assert_printed(numbers, FULL)


def test_full_videos_with_background(folder: Path) -> None:
    arrays, numbers = score(BG, folder)
    golden = recorded(BG)
    order = [arrays["video_id"].tolist().index(video) for video in golden["video_order"].tolist()]
    rows, cols = (blocks_of(arrays[name], order) for name in ("num_captions", "num_windows"))
    # 2.3e-5 of 25.
    np.testing.assert_allclose(arrays["scores"][np.ix_(rows, cols)], golden["merged"], atol=1e-4)
    assert_printed(numbers, BG)


def blocks_of(counts: np.ndarray, order: list[int]) -> np.ndarray:
    """Positions of the rows of each video, videos in `order`."""
    starts = np.cumsum(counts) - counts
    return np.concatenate([np.arange(starts[v], starts[v] + counts[v]) for v in order])


def assert_printed(numbers: dict[str, float], task: str) -> None:
    lines = printed(task)[printed(task).index("best results:") :]
    for title, prefix in zip(TITLES, ("", "DTW-", "OTAM-"), strict=True):
        ours = " - ".join(f"R@{k}: {numbers[f'{prefix}R{k}']:.4f}" for k in (1, 5, 10))
        assert ours == lines[lines.index(title) + 1]


def test_the_aligner_of_whole_videos_makes_the_recorded_tensors(folder: Path) -> None:
    config = DatasetConfig(
        bert_name=f"{folder}/tinybert",
        max_video_len=8,
        max_len=32,
        sliding_window=4,
        sliding_window_size=8,
    )
    aligner = YoucookFullVideoBGAligner(config, Split.TEST)
    with np.load(GOLDEN / "aligners_norton.npz", allow_pickle=False) as arrays:
        texts = [[110, 111], [112], [113, 114, 115]]
        item = aligner("vidA", arrays["in_video_feature"][:22], texts, random.Random(0))
        for name in ("caps", "cmasks", "vfeats", "vmasks"):
            np.testing.assert_array_equal(
                item[name].numpy(), arrays[f"YoucookFullVideoBGAligner/{name}"]
            )
    assert (item["video_id"], item["video_len"]) == ("vidA", 22)


def test_a_record_without_features_is_named_and_refused(folder: Path) -> None:
    config = e2e_config(ZS, folder)
    write_hash_checkpoint(config)
    with pytest.raises(
        DataError, match=r"1 of 55 test items have no features \(1 videos: missing_video\)"
    ):
        predict(config, device=torch.device("cpu"))


def test_json_in_place_of_the_pickle_and_a_csv_in_place_of_both_score_the_same(
    folder: Path, tmp_path: Path
) -> None:
    _, expected = score(ZS, folder)
    youcook = folder / "data" / "youcook"
    files = json.loads((GOLDEN / "e2e_predict.json").read_text())["annotation_files"]
    records = files["data/youcook/youcook_val.pkl(as json)"]
    (tmp_path / "val.json").write_text(records)
    _, from_json = score(ZS, folder, f"dataset.test_path={tmp_path}/val.json")
    database = json.loads((youcook / "youcookii_annotations_trainval.json").read_text())["database"]
    rows = ["end,start,task,text,video_id"]
    for video_id, _, number in (record["id"].rpartition("_") for record in json.loads(records)):
        if video_id in database:
            entry = database[video_id]["annotations"][int(number)]
            rows.append(
                f"{entry['segment'][1]},{entry['segment'][0]},226,{entry['sentence']},{video_id}"
            )
    (tmp_path / "val.csv").write_text("\n".join(rows))
    _, from_csv = score(
        ZS, folder, f"dataset.test_path={tmp_path}/val.csv", "dataset.trainval_annotation=/nowhere"
    )
    assert from_json == from_csv == expected
