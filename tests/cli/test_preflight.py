"""Tests of the checks before a training starts, with files that are made one by one."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch._inductor import config as inductor

from mmpt.cli import preflight
from mmpt.config import RunConfig, load_config
from mmpt.endtasks import MSRVTTTextProcessor
from mmpt.errors import CheckpointError, ConfigError, DataError
from mmpt.tasks import Task
from tests.support.jobs import VIDEOCLIP, corpus_overrides


def missing(dataset):
    config = RunConfig(path="a.yaml", dataset=MSRVTTTextProcessor.Config(**dataset))
    with pytest.raises(DataError) as caught:
        preflight.check_data(config)
    text = str(caught.value)
    assert "DATASET.md" in text
    assert preflight.DEMO_COMMANDS in text
    return [
        line.removeprefix("  - ")
        for line in text.splitlines()
        if line.startswith("  - ")
    ]


def test_files_and_folders_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("val.lst").touch()
    paths = {"train_path": "train.lst", "val_path": "val.lst", "vfeat_dir": "feat"}
    assert missing(paths) == [
        "train.lst (`dataset.train_path`)",
        "feat (`dataset.vfeat_dir`)",
    ]
    # An evaluation needs no training files.
    paths |= {"split": "test", "test_path": "t.json", "json_path": "a.json"}
    assert missing(paths) == [
        "t.json (`dataset.test_path`)",
        "feat (`dataset.vfeat_dir`)",
        "a.json (`dataset.json_path`)",
    ]


def test_shards_that_are_not_there(corpus, tmp_path):
    (tmp_path / "feat").mkdir()
    overrides = [
        *corpus_overrides(corpus, tmp_path),
        f"dataset.vfeat_dir={tmp_path}/feat",
    ]
    with pytest.raises(
        DataError, match=r"neither train_meta\.json nor .* run `mmpt pack`"
    ):
        preflight.check_parts(load_config(VIDEOCLIP, overrides))


def test_sizes_of_the_model_are_checked_before_a_process_starts(corpus, tmp_path):
    config = load_config(
        VIDEOCLIP,
        [*corpus_overrides(corpus, tmp_path), "model.num_hidden_video_layers=9"],
    )
    with pytest.raises(
        ConfigError, match=r"must be at most the 2 layers of .*, but is 9"
    ):
        preflight.check_parts(config)


def test_the_model_is_not_built_before_a_process_starts(corpus, tmp_path, monkeypatch):
    def build_model(task, *, pretrained):
        raise AssertionError("this was not to be called")

    monkeypatch.setattr(Task, "build_model", build_model)
    preflight.check_parts(load_config(VIDEOCLIP, corpus_overrides(corpus, tmp_path)))


@pytest.mark.spawn
@pytest.mark.skipif(
    torch.cuda.is_available(), reason="a trial on a GPU is left to the processes"
)
@inductor.patch({"cpp.cxx": (None, "no-such-compiler")})
def test_a_missing_compiler_is_found_before_a_process_starts(corpus, tmp_path):
    torch.compiler.reset()
    with pytest.raises(
        ConfigError, match=r"`model.compile: true` needs a C\+\+ compiler"
    ):
        preflight.check_parts(
            load_config(
                VIDEOCLIP, [*corpus_overrides(corpus, tmp_path), "model.compile=true"]
            )
        )


@pytest.mark.parametrize("continues", [False, True])
def test_the_checkpoint_to_start_from(tmp_path, continues):
    start, last = tmp_path / "w.pt", tmp_path / "checkpoint_last.pt"
    options = {"restore_file": str(start), "save_dir": str(tmp_path)}
    config = RunConfig(path="a.yaml", fairseq={"checkpoint": options})
    with pytest.raises(CheckpointError) as caught:
        preflight.check_start(config)
    for part in (f"{start}: no such file", "fairseq.checkpoint.restore_file", "a.yaml"):
        assert part in str(caught.value)
    assert preflight.DEMO_COMMANDS in str(caught.value)
    weights = last if continues else start
    model = {"a": torch.ones(1)}
    torch.save({"model": model}, weights)
    with pytest.raises(
        CheckpointError, match="this one has no optimizer_history, extra_state"
    ):
        preflight.check_start(config)
    torch.save({"model": model, "optimizer_history": [], "extra_state": {}}, weights)
    preflight.check_start(config)
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="damaged"):
        preflight.check_start(config)


@pytest.mark.parametrize("damage", [b"", b"PK\3\4", bytes(1000)])
def test_a_run_with_a_damaged_last_checkpoint_continues_from_another(
    tmp_path, damage, caplog
):
    config = RunConfig(
        path="a.yaml", fairseq={"checkpoint": {"save_dir": str(tmp_path)}}
    )
    last, previous = (
        tmp_path / "checkpoint_last.pt",
        tmp_path / "checkpoint_previous.pt",
    )
    entries = {"model": {"w": torch.ones(9)}, "extra_state": {}}
    torch.save(entries | {"optimizer_history": [{"num_updates": 3}]}, previous)
    last.write_bytes(damage)
    preflight.check_start(config, leads=False)  # node 0 repairs it
    assert last.read_bytes() == damage
    preflight.check_start(config)
    assert last.read_bytes() == previous.read_bytes()
    assert f"{last}: damaged" in caplog.text
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(damage)
    with pytest.raises(
        CheckpointError, match=r"No other checkpoint of this run is whole.*remove"
    ):
        preflight.check_start(config)


def test_a_diverged_last_checkpoint_names_the_newest_finite_one(tmp_path):
    """A run does not continue from it by itself, as it would diverge again."""
    entries = {"optimizer_history": [], "extra_state": {}}
    for age, (name, value) in enumerate(
        {"_last": "nan", "2": "nan", "_1_300": 1, "1": 1}.items()
    ):
        path = tmp_path / f"checkpoint{name}.pt"
        torch.save(entries | {"model": {"w": torch.full((9,), float(value))}}, path)
        os.utime(path, (1000 - age, 1000 - age))
    last, newest = tmp_path / "checkpoint_last.pt", tmp_path / "checkpoint_1_300.pt"
    config = RunConfig(
        path="a.yaml", fairseq={"checkpoint": {"save_dir": str(tmp_path)}}
    )
    with pytest.raises(CheckpointError) as caught:
        preflight.check_start(config)
    assert "must be finite" in str(caught.value)
    assert f"newest whole checkpoint of this run is {newest}. " in str(caught.value)
    assert f"`cp {newest} {last}`" in str(caught.value)
    shutil.copy(newest, last)  # as the message says
    preflight.check_start(config)


def test_a_training_need_not_start_from_a_checkpoint(tmp_path):
    preflight.check_start(
        RunConfig(fairseq={"checkpoint": {"save_dir": str(tmp_path)}})
    )
