"""A damaged last checkpoint is replaced by the newest intact one. A run always keeps one."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from mmpt.errors import CheckpointError
from mmpt.models.checkpoint_folder import copy_atomically, keep_previous, repair_last


def write(path: Path, num_updates: int, value: float = 0.5) -> None:
    """Writes a checkpoint with the entries that fairseq needs."""
    torch.save(
        {
            "model": {"weight": torch.full((64, 64), value)},
            "optimizer_history": [{"num_updates": num_updates}],
            "extra_state": {"train_iterator": {"epoch": 1}},
        },
        path,
    )


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zero(path: Path) -> None:
    """Writes zeros over a part of the weights, which leaves the file readable."""
    content = path.read_bytes()
    at = content.index(torch.full((16,), 0.5).numpy().tobytes())
    path.write_bytes(content[:at] + bytes(64) + content[at + 64 :])
    assert torch.load(path, weights_only=True)["model"]["weight"][0, 0] == 0


@pytest.mark.parametrize("damage", [cut, empty, zero])
def test_a_damaged_file_is_replaced_by_the_one_with_the_most_updates(
    damage, tmp_path, caplog
):
    last = tmp_path / "checkpoint_last.pt"
    write(last, 9)
    write(tmp_path / "checkpoint_previous.pt", 8)
    write(tmp_path / "checkpoint1.pt", 5)
    # Intact, but its weights are NaN.
    write(tmp_path / "checkpoint_1_8.pt", 10, value=float("nan"))
    # File times must not matter, because copying changes them.
    os.utime(tmp_path / "checkpoint_previous.pt", (0, 0))
    damage(last)
    bad = last.read_bytes()
    repair_last(last)
    assert last.read_bytes() == (tmp_path / "checkpoint_previous.pt").read_bytes()
    assert (tmp_path / "checkpoint_last.pt.damaged").read_bytes() == bad
    assert "damaged" in caplog.text
    assert f"continues from {tmp_path}/checkpoint_previous.pt" in caplog.text


def test_an_intact_file_is_kept(tmp_path):
    last = tmp_path / "checkpoint_last.pt"
    write(last, 1)
    write(tmp_path / "checkpoint2.pt", 5)
    before = last.read_bytes()
    repair_last(last)
    assert last.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_without_an_intact_checkpoint_gives_one_error(tmp_path):
    last = tmp_path / "checkpoint_last.pt"
    for path in (last, tmp_path / "checkpoint1.pt"):
        write(path, 1)
        cut(path)
    with pytest.raises(
        CheckpointError, match="No other checkpoint of this run is intact"
    ):
        repair_last(last)
    assert last.exists()


def test_a_file_with_code_is_not_replaced(tmp_path):
    last = tmp_path / "checkpoint_last.pt"
    write(tmp_path / "checkpoint1.pt", 1)
    torch.save({"model": {"weight": shutil.rmtree}}, last)
    with pytest.raises(CheckpointError, match="could run code"):
        repair_last(last)


def refuse(*_: object) -> None:
    raise OSError("no links")


@pytest.mark.parametrize("has_links", [True, False])
def test_the_previous_checkpoint_is_kept(has_links, tmp_path, monkeypatch):
    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    last, previous = (
        tmp_path / "checkpoint_last.pt",
        tmp_path / "checkpoint_previous.pt",
    )
    keep_previous(last)  # no checkpoint exists yet
    assert not previous.exists()
    for number in (1, 2, 3):
        keep_previous(last)
        assert last.exists() == (number > 1)
        (tmp_path / "new").write_text(str(number))
        copy_atomically(tmp_path / "new", last)
    assert (previous.read_text(), last.read_text()) == ("2", "3")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        last.name,
        previous.name,
        "new",
    ]
