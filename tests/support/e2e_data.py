"""The input files of the recorded end-to-end predictions: annotations, features, BERT, checkpoints.

`make_e2e_files` writes them, `e2e_config` loads a shipped evaluation YAML that uses them, and
`recorded` returns the predictions that the original saved.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmpt.config import RunConfig, load_config
from mmpt.tasks import Task
from tests.support.formula import fill_by_formula, formula_features, hash01
from tests.support.paths import ROOT
from tests.support.recorded import arrays, record
from tests.support.tiny_bert import tiny_bert

AS_JSON = "(as json)"
"""Suffix of the names of recorded files that are pickles. Their content is recorded as JSON."""
E2E: dict[str, Any] = record("e2e_predict")
FILE_KEYS = ("test_path", "trainval_annotation", "vfeat_dir")


def make_e2e_files(folder: Path) -> Path:
    """Writes the files to `folder`, and returns it.

    They are in tinybert/ (BERT) and data/ (annotations and features of all recorded data sets).
    """
    tiny_bert(folder / "tinybert")
    for name, text in E2E["annotation_files"].items():
        path = folder / name.removesuffix(AS_JSON)
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(AS_JSON):
            path.write_bytes(pickle.dumps(json.loads(text)))
        else:
            path.write_text(text)
    data = folder / "data"
    for i in range(24):
        path = data / f"msrvtt/msrvtt_feature_fps30_512/video{7000 + i}.npy"
        _write_feature(path, i, _seconds(5, 40, i, 1))
    for v in range(9):
        path = data / f"youcook/youcook_validation_feature_fps30_512/yc{v:02d}_x{v}.npy"
        _write_feature(path, 200 + v, _seconds(50, 60, v, 3))
    for v in range(6):
        path = data / f"coin/coin_feature_fps30_512/coin{v:02d}.npy"
        _write_feature(path, 400 + v, _seconds(30, 60, v, 5))
    return folder


def e2e_config(task: str, folder: Path, *more: str) -> RunConfig:
    """Loads projects/retri/norton/<task>.yaml with the recorded files and sizes.

    The checkpoint is `folder`/<task>/checkpoint_best.pt. Results are written to `folder`/<task>.
    If the YAML includes others, the working directory must be the project's root.

    Args:
        more: further overrides.
    """
    was: dict[str, Any] = E2E["results"][task]["config"]
    paths = {key: was["dataset"][key] for key in FILE_KEYS if key in was["dataset"]}
    overrides = [
        f"dataset.bert_name={folder}/tinybert",
        *(f"dataset.{key}={folder}/{path}" for key, path in paths.items()),
        f"model.num_hidden_video_layers={was['model']['num_hidden_video_layers']}",
        f"fairseq.common_eval.path={folder}/{task}/checkpoint_best.pt",
        f"eval.save_path={folder}/{task}",
        "fairseq.dataset.num_workers=0",
    ]
    return load_config(ROOT / f"projects/retri/norton/{task}.yaml", [*overrides, *more])


def write_hash_checkpoint(config: RunConfig) -> Path:
    """Writes the checkpoint that `config` names, with `hash` weights, and returns its path."""
    model = fill_by_formula(
        Task.from_config(config).build_model(pretrained=False), "hash"
    )
    path = Path(config.checkpoint_paths[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return path


def recorded(task: str) -> dict[str, np.ndarray]:
    """Returns the arrays that the original saved for `task`, such as `merged` or `Y_pred`."""
    golden = arrays("e2e_predict")
    return {
        name.partition("/")[2]: golden[name]
        for name in golden
        if name.startswith(f"{task}/")
    }


def _seconds(least: int, spread: int, number: int, stream: int) -> int:
    return least + int(spread * hash01(np.asarray(number, np.uint64), stream))


def _write_feature(path: Path, number: int, seconds: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, formula_features(number, seconds))
