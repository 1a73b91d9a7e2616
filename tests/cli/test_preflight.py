"""The list of missing files, against files made one by one."""

import pytest
import torch
from torch._inductor import config as inductor

from mmpt.cli import preflight
from mmpt.config import DatasetConfig, RunConfig, load_config
from mmpt.errors import CheckpointError, ConfigError, DataError
from mmpt.tasks import Task
from tests.jobs import VIDEOCLIP, corpus_overrides

DATASET = {
    "train_path": "d/train.lst",
    "val_path": "d/val.lst",
    "vfeat_dir": "d/feat",
    "tfeat_dir": "d/feat/cap.bert.",
}


def how2(**changes):
    return RunConfig(path="a.yaml", dataset=DatasetConfig(**(DATASET | changes)))


def missing(config):
    with pytest.raises(DataError) as caught:
        preflight.check_data(config)
    text = str(caught.value)
    assert "DATASET.md" in text
    assert "make demo" in text
    assert preflight.DEMO_COMMANDS in text
    return [line.removeprefix("  - ") for line in text.splitlines() if line.startswith("  - ")]


def test_nothing_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert missing(how2(val_path=None)) == [
        "d/train.lst (`dataset.train_path`)",
        "d/feat (the folder `dataset.vfeat_dir`)",
        "d/feat/cap.bert.train_0.startends_{data,starts}.npy (captions, `dataset.tfeat_dir`)",
        "d/feat/cap.bert.train_0.caps_ids_{data,starts}.npy (captions, `dataset.tfeat_dir`)",
    ]


def test_files_appear_one_by_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d" / "feat").mkdir(parents=True)
    config = how2()
    stems = ("{s}_0", "cap.bert.{s}_0.startends", "cap.bert.{s}_0.caps_ids")
    files = ["../train.lst", "../val.lst", "train_meta.pkl", "val_meta.json"]
    files += [
        f"{stem}_{part}.npy".format(s=split)
        for split in ("train", "val")
        for stem in stems
        for part in ("data", "starts")
    ]
    counts = []
    for file in files:
        counts.append(len(missing(config)))
        (tmp_path / "d" / "feat" / file).touch()
    # one line per list, meta file and pair of arrays
    assert counts == [10, 9, 8, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    preflight.check_data(config)


def test_an_evaluation_needs_no_training_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = how2(split="test", tfeat_dir=None, test_path="t.json")
    assert missing(config) == [
        "t.json (`dataset.test_path`)",
        "d/feat (the folder `dataset.vfeat_dir`)",
    ]


def test_other_annotation_files_are_looked_for_too():
    config = RunConfig(
        dataset=DatasetConfig(json_path="/nowhere/a.json", jsfusion_path="/nowhere/inert.csv")
    )
    assert missing(config) == ["/nowhere/a.json (`dataset.json_path`)"]


def test_sizes_of_the_model_are_checked_before_a_process_starts(corpus, tmp_path):
    config = load_config(
        VIDEOCLIP, [*corpus_overrides(corpus, tmp_path), "model.num_hidden_video_layers=9"]
    )
    with pytest.raises(ConfigError, match=r"must be at most the 2 layers of .*, but is 9"):
        preflight.check_parts(config)


def test_a_model_that_looks_at_numbers_as_it_is_built_is_left_to_the_processes(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        Task, "build_model", lambda task, *, pretrained: torch.linspace(0, 1, 3).tolist()
    )
    preflight.check_parts(load_config(VIDEOCLIP, corpus_overrides(corpus, tmp_path)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a trial on a GPU is left to the processes")
@inductor.patch({"cpp.cxx": (None, "no-such-compiler")})
def test_a_missing_compiler_is_found_before_a_process_starts(corpus, tmp_path):
    torch.compiler.reset()
    with pytest.raises(ConfigError, match=r"`model.compile: true` needs a C\+\+ compiler"):
        preflight.check_parts(
            load_config(VIDEOCLIP, [*corpus_overrides(corpus, tmp_path), "model.compile=true"])
        )


def test_restore_file(tmp_path):
    weights = tmp_path / "w.pt"
    config = RunConfig(path="a.yaml", fairseq={"checkpoint": {"restore_file": str(weights)}})
    with pytest.raises(CheckpointError) as caught:
        preflight.check_restore_file(config)
    for part in (
        str(weights),
        "fairseq.checkpoint.restore_file",
        "a.yaml",
        "DATASET.md",
        preflight.DEMO_COMMANDS,
    ):
        assert part in str(caught.value)
    torch.save({"model": {}}, weights)
    with pytest.raises(CheckpointError, match="this one has no optimizer_history, extra_state"):
        preflight.check_restore_file(config)
    torch.save({"model": {}, "optimizer_history": [], "extra_state": {}}, weights)
    preflight.check_restore_file(config)
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="damaged"):
        preflight.check_restore_file(config)
    preflight.check_restore_file(RunConfig())
