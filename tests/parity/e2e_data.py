"""The files that the end-to-end predictions were recorded on, made anew: annotations, features,
BERT, checkpoints.

`e2e_config(task, folder)` is a shipped evaluation YAML pointed at them; `recorded(task)` is what
the original saved.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmpt.config import RunConfig, load_config
from mmpt.tasks import Task
from tests.parity.formula import fill_by_formula, formula_features, hash01
from tests.tiny_bert import tiny_bert

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
AS_JSON = "(as json)"
"""Ending of a file's name whose content is recorded as JSON but was a pickle."""
E2E: dict[str, Any] = json.loads((GOLDEN / "e2e_predict.json").read_text())
FILE_KEYS = ("test_path", "trainval_annotation", "vfeat_dir")


def make_e2e_files(folder: Path) -> Path:
    """Write tinybert/, data/ (annotations and features of all recorded data sets) under `folder`;
    return it.
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
        _write_feature(
            data / f"msrvtt/msrvtt_feature_fps30_512/video{7000 + i}.npy", i, _seconds(5, 40, i, 1)
        )
    for v in range(9):
        name = f"yc{v:02d}_x{v}.npy"
        _write_feature(
            data / "youcook/youcook_validation_feature_fps30_512" / name,
            200 + v,
            _seconds(50, 60, v, 3),
        )
    for v in range(6):
        _write_feature(
            data / f"coin/coin_feature_fps30_512/coin{v:02d}.npy", 400 + v, _seconds(30, 60, v, 5)
        )
    return folder


def e2e_config(task: str, folder: Path, project: str = "norton", *more: str) -> RunConfig:
    """Load projects/retri/<project>/<task>.yaml with the recorded files and sizes; `more` are
    further overrides.

    The checkpoint is `folder`/<task>/checkpoint_best.pt, results go to `folder`/<task>. The working
    directory must be the project's root if the YAML includes others.
    """
    was: dict[str, Any] = E2E["results"][task]["config"]
    overrides = [
        f"dataset.bert_name={folder}/tinybert",
        *(
            f"dataset.{key}={folder}/{was['dataset'][key]}"
            for key in FILE_KEYS
            if key in was["dataset"]
        ),
        f"model.num_hidden_video_layers={was['model']['num_hidden_video_layers']}",
        f"fairseq.common_eval.path={folder}/{task}/checkpoint_best.pt",
        f"eval.save_path={folder}/{task}",
        "fairseq.dataset.num_workers=0",
    ]
    return load_config(
        str(ROOT / "projects" / "retri" / project / f"{task}.yaml"), [*overrides, *more]
    )


def write_hash_checkpoint(config: RunConfig) -> Path:
    """Write the checkpoint that `config` names, with the model's `hash` weights; return its
    path.
    """
    model = fill_by_formula(Task.from_config(config).build_model(pretrained=False), "hash")
    path = Path(config.checkpoint_paths[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return path


def predicted(folder: Path) -> dict[str, np.ndarray]:
    """Return what the one checkpoint scored into `folder` predicted."""
    (path,) = folder.glob("*.npz")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def recorded(task: str) -> dict[str, np.ndarray]:
    """Return the arrays that the original saved for `task`: `merged`, or `Y_pred` and `Y_true`, and
    such.
    """
    with np.load(GOLDEN / "e2e_predict.npz", allow_pickle=False) as arrays:
        return {
            name.partition("/")[2]: arrays[name]
            for name in arrays.files
            if name.partition("/")[0] == task
        }


def printed(task: str) -> list[str]:
    """Return the last lines that the original printed for `task`."""
    return E2E["results"][task]["stdout_tail"]


def recorded_settings(task: str) -> dict[str, Any]:
    """Return the recorded YAML of `task` with the released BERT, depth and paths in place of the
    recording's.
    """
    settings = json.loads(json.dumps(E2E["results"][task]["config"]))
    settings["dataset"]["bert_name"] = "bert-base-uncased"
    settings["model"]["num_hidden_video_layers"] = 6
    del settings["fairseq"]["common_eval"], settings["eval"]
    return settings


def _seconds(least: int, spread: int, number: int, stream: int) -> int:
    return least + int(spread * hash01(np.asarray(number, np.uint64), stream))


def _write_feature(path: Path, number: int, seconds: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, formula_features(number, seconds))
