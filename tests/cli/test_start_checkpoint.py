"""The checkpoint that a training continues or starts from. The folders are made one by one."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from mmpt.cli.start_checkpoint import DEMO_COMMANDS, check_start
from mmpt.config import DatasetConfig, ModelConfig, RunConfig
from mmpt.errors import CheckpointError


@pytest.mark.parametrize("continues", [False, True])
def test_the_checkpoint_to_start_from(tmp_path, continues):
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
    check_start(config, leads=False)  # node 0 repairs it
    assert last.read_bytes() == damage
    check_start(config)
    assert last.read_bytes() == previous.read_bytes()
    assert f"{last}: damaged" in caplog.text
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(damage)
    with pytest.raises(
        CheckpointError, match=r"No other checkpoint of this run is whole.*remove"
    ):
        check_start(config)


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
        check_start(config)
    assert "must be finite" in str(caught.value)
    assert f"newest whole checkpoint of this run is {newest}. " in str(caught.value)
    assert f"`cp {newest} {last}`" in str(caught.value)
    shutil.copy(newest, last)  # as the message says
    check_start(config)


def test_a_training_need_not_start_from_a_checkpoint(tmp_path):
    check_start(RunConfig(fairseq={"checkpoint": {"save_dir": str(tmp_path)}}))


WHOLE = {"model": {"w": torch.ones(9)}, "optimizer_history": [], "extra_state": {}}


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
def test_a_checkpoint_for_features_of_another_encoder_is_a_warning(
    tmp_path: Path,
    trained: dict[str, str],
    found: dict[str, str],
    layernorm_only: bool,
    warns: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start, features, run = (tmp_path / name for name in ("start", "feat", "run"))
    for folder in (start, features, run):
        folder.mkdir()
    torch.save(WHOLE, start / "w.pt")
    facts = {"features": {"width": 512, **trained}}
    (start / "run.json").write_text(json.dumps(facts))
    (features / "features.json").write_text(json.dumps({"width": 512, **found}))
    config = RunConfig(
        path="a.yaml",
        dataset=DatasetConfig(vfeat_dir=str(features)),
        model=ModelConfig(layernorm_only=layernorm_only),
        fairseq={
            "checkpoint": {"restore_file": str(start / "w.pt"), "save_dir": str(run)}
        },
    )
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
    # A training that continues has had the warning.
    torch.save(WHOLE, run / "checkpoint_last.pt")
    check_start(config)
    assert len(caplog.messages) == warns
