"""Checks before a job starts: the classes that a config names, the parts of a training run, and the
checkpoint with which a run starts or continues.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import config as inductor

from mmpt.config import DatasetConfig, LossConfig, ModelConfig, RunConfig, load_config
from mmpt.config.run import DEMO_COMMANDS
from mmpt.errors import CheckpointError, ConfigError, DataError
from mmpt.losses import MMContraLoss
from mmpt.tasks import Task
from mmpt.tasks.checks import check_parts, check_start
from tests.support.configs import CONFIG, DATASET
from tests.support.jobs import VIDEOCLIP, corpus_overrides


def test_unknown_names_and_unsuitable_classes_are_reported_together() -> None:
    wrong = CONFIG.replace(
        task="VideoRetriTsk",
        dataset=DATASET.replace(
            video_processor="Zzz",
            text_processor="no.such.module.Reader",
            aligner="mmpt.losses.MMContraLoss",
        ),
        model=ModelConfig(model_cls="MMFusionSeperate"),
        loss=LossConfig(loss_cls="torch.nn.CrossEntropyLoss"),
    )
    with pytest.raises(ConfigError) as caught:
        Task.from_config(wrong)
    problems = caught.value.problems
    assert caught.value.source == "a.yaml"
    assert len(problems) == 6
    base = "must be a subclass of `mmpt"
    for key, hint in {
        "task": "Did you mean `VideoRetriTask`?",
        "dataset.video_processor": "no video processor is called `Zzz`. Known: ",
        "dataset.text_processor": "cannot import the text processor `no.such.module.Reader`",
        "dataset.aligner": f"MMContraLoss` {base}.processors.base.ItemAligner`, but is not.",
        "model.model_cls": "Did you mean `MMFusionSeparate`?",
        "loss.loss_cls": f"the loss `torch.nn.CrossEntropyLoss` {base}.losses.base.Loss`, but",
    }.items():
        (problem,) = (problem for problem in problems if f"`{key}`" in problem)
        assert hint in problem


def test_a_model_must_be_made_from_a_config() -> None:
    with pytest.raises(
        ConfigError,
        match=r"`model\.model_cls: torch\.nn\.Linear` must have .* `from_config`",
    ):
        Task.from_config(CONFIG.replace(model=ModelConfig(model_cls="torch.nn.Linear")))


def test_the_batch_size_for_whole_videos_must_be_1() -> None:
    config = CONFIG.replace(dataset=DATASET.replace(aligner="CrossTaskAligner"))
    with pytest.raises(
        ConfigError,
        match=r"`fairseq\.dataset\.batch_size` must be 1 with .*CrossTaskAligner.* is 2\.",
    ):
        Task.from_config(config.with_option("dataset", "batch_size", 2))


NORTON = load_config("projects/retri/norton/how2_pretrain.yaml").loss
BACKGROUND = "MMFusionSeparateFullVideoBGRetrieval"


@pytest.mark.parametrize(
    ("model", "loss", "words"),
    [
        (
            "MMFusionSeparateActionSegmentation",
            LossConfig(loss_cls="T2VContraLoss"),
            "needs pooled_video, pooled_text, but .* returns logits",
        ),
        (
            "MMFusionSeparate",
            LossConfig(loss_cls="CrossEntropy"),
            "needs logits, but .*MMFusionSeparate` returns pooled_video",
        ),
        # Only the video-paragraph term needs more than pooled states.
        (
            BACKGROUND,
            NORTON,
            "needs video_outputs, .* but .* returns pooled_video, pooled_text",
        ),
        (BACKGROUND, MMContraLoss.Config(loss_cls="MMContraLoss"), None),
    ],
)
def test_a_loss_must_fit_the_model(
    model: str, loss: LossConfig, words: str | None
) -> None:
    task = Task.from_config(
        CONFIG.replace(model=ModelConfig(model_cls=model), loss=loss)
    )
    if words is None:
        assert task.build_loss().config is loss
        return
    with pytest.raises(ConfigError, match=words):
        task.build_loss()


def check_videoclip(corpus: Path, folder: Path, *overrides: str) -> None:
    """Checks a training run on a small corpus in `folder`."""
    config = load_config(VIDEOCLIP, [*corpus_overrides(corpus, folder), *overrides])
    check_parts(Task.from_config(config))


def test_missing_shards_are_an_error(corpus, tmp_path):
    (tmp_path / "feat").mkdir()
    with pytest.raises(
        DataError, match=r"neither train_meta\.json nor .* run `mmpt pack`"
    ):
        check_videoclip(corpus, tmp_path, f"dataset.vfeat_dir={tmp_path}/feat")


def test_sizes_of_the_model_are_checked_before_a_process_starts(corpus, tmp_path):
    with pytest.raises(
        ConfigError, match=r"must be at most the 2 layers of .*, but is 9"
    ):
        check_videoclip(corpus, tmp_path, "model.num_hidden_video_layers=9")


def test_the_model_is_not_built_before_a_process_starts(corpus, tmp_path, monkeypatch):
    def build_model(task, *, pretrained):
        raise AssertionError("this was not to be called")

    monkeypatch.setattr(Task, "build_model", build_model)
    check_videoclip(corpus, tmp_path)


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
        check_videoclip(corpus, tmp_path, "model.compile=true")


@pytest.mark.parametrize("continues", [False, True])
def test_the_checkpoint_that_a_run_starts_from_is_checked(tmp_path, continues):
    start, last = tmp_path / "w.pt", tmp_path / "checkpoint_last.pt"
    options = {"restore_file": str(start), "save_dir": str(tmp_path)}
    config = RunConfig(path="a.yaml", fairseq={"checkpoint": options})
    with pytest.raises(CheckpointError) as caught:
        check_start(config)
    for part in (f"{start}: no such file", "fairseq.checkpoint.restore_file", "a.yaml"):
        assert part in str(caught.value)
    assert DEMO_COMMANDS in str(caught.value)
    weights = last if continues else start
    model = {"a": torch.ones(1)}
    torch.save({"model": model}, weights)
    with pytest.raises(
        CheckpointError, match="this one has no optimizer_history, extra_state"
    ):
        check_start(config)
    torch.save({"model": model, "optimizer_history": [], "extra_state": {}}, weights)
    check_start(config)
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="damaged"):
        check_start(config)


@pytest.mark.parametrize("damage", [b"", b"PK\3\4", bytes(1000)])
def test_a_run_with_a_damaged_last_checkpoint_continues_from_another_one(
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
    check_start(config, is_node_0=False)  # node 0 repairs it
    assert last.read_bytes() == damage
    check_start(config)
    assert last.read_bytes() == previous.read_bytes()
    assert f"{last}: damaged" in caplog.text
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(damage)
    with pytest.raises(
        CheckpointError, match=r"No other checkpoint of this run is intact.*remove"
    ):
        check_start(config)


def test_the_error_for_a_diverged_checkpoint_names_the_newest_finite_one(tmp_path):
    """A run does not continue from it automatically, because it would diverge again."""
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
        check_start(config)
    assert "must be finite" in str(caught.value)
    assert f"newest intact checkpoint of this run is {newest}. " in str(caught.value)
    assert f"`cp {newest} {last}`" in str(caught.value)
    shutil.copy(newest, last)  # as the message suggests
    check_start(config)


def test_training_need_not_start_from_a_checkpoint(tmp_path):
    check_start(RunConfig(fairseq={"checkpoint": {"save_dir": str(tmp_path)}}))


WHOLE = {"model": {"w": torch.ones(9)}, "optimizer_history": [], "extra_state": {}}


def starting_run(
    folder: Path,
    trained: dict[str, Any],
    found: dict[str, Any],
    *,
    layernorm_only: bool,
) -> RunConfig:
    """Returns a run that starts from a checkpoint, with the features of both."""
    start, features, run = (folder / name for name in ("start", "feat", "run"))
    for each in (start, features, run):
        each.mkdir()
    torch.save(WHOLE, start / "w.pt")
    facts = {"features": {"width": 512, **trained}}
    (start / "run.json").write_text(json.dumps(facts))
    (features / "features.json").write_text(json.dumps({"width": 512, **found}))
    return RunConfig(
        path="a.yaml",
        dataset=DatasetConfig(vfeat_dir=str(features), feature_fps=found.get("fps", 1)),
        model=ModelConfig(layernorm_only=layernorm_only),
        fairseq={
            "checkpoint": {"restore_file": str(start / "w.pt"), "save_dir": str(run)}
        },
    )


@pytest.mark.parametrize("layernorm_only", [False, True])
def test_a_checkpoint_for_features_of_another_rate_is_reported(
    tmp_path: Path, layernorm_only: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = starting_run(
        tmp_path, {"fps": 2}, {"fps": 1}, layernorm_only=layernorm_only
    )
    difference = "with 2 rows per second, but `dataset.feature_fps` is 1"
    if layernorm_only:
        with pytest.raises(CheckpointError, match=difference):
            check_start(config)
    else:
        check_start(config)
        assert difference in caplog.text


@pytest.mark.parametrize(
    ("trained", "found", "layernorm_only", "warns"),
    [
        ({"encoder": "s3d"}, {"encoder": "hf:a/clip"}, True, True),
        ({"encoder": "s3d"}, {"encoder": "hf:a/clip"}, False, False),
        ({"encoder": "s3d"}, {"encoder": "s3d"}, True, False),
        ({"encoder": "s3d"}, {}, True, False),
        ({}, {"encoder": "hf:a/clip"}, True, False),
        # The first layer is then initialised again.
        ({"encoder": "s3d"}, {"encoder": "hf:a/clip", "width": 768}, True, False),
    ],
)
def test_a_checkpoint_for_features_of_another_encoder_gives_a_warning(
    tmp_path: Path,
    trained: dict[str, str],
    found: dict[str, str],
    layernorm_only: bool,
    warns: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = starting_run(tmp_path, trained, found, layernorm_only=layernorm_only)
    check_start(config)
    assert len(caplog.messages) == warns
    if warns:
        for part in (
            "s3d",
            "hf:a/clip",
            "w.pt",
            "`model.layernorm_only` does not train",
        ):
            assert part in caplog.text
    # The warning was already given when the run started.
    torch.save(WHOLE, Path(config.save_dir) / "checkpoint_last.pt")
    check_start(config)
    assert len(caplog.messages) == warns
