"""Stamps of finished files are valid only for the same inputs and complete files."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mmpt.utils.artefact import Artefact, fingerprint, weights_fingerprint


@pytest.fixture
def artefact(tmp_path: Path) -> Artefact:
    made = Artefact(
        tmp_path / "stamps" / "a.json", (tmp_path / "a.npy", tmp_path / "b.npy")
    )
    assert made.finished(fingerprint("x")) is None
    for path in made.files:
        path.write_text(path.name)
    made.finish(fingerprint("x"), count=2)
    return made


def test_files_are_finished_for_the_same_inputs_only(artefact: Artefact) -> None:
    stamp = artefact.finished(fingerprint("x"))
    assert stamp is not None
    assert stamp["count"] == 2
    assert artefact.finished(fingerprint("y")) is None
    artefact.begin()
    assert artefact.finished(fingerprint("x")) is None


@pytest.mark.parametrize("damage", ["short", "lost", "stamp", "list"])
def test_damaged_files_are_not_finished(artefact: Artefact, damage: str) -> None:
    if damage == "short":
        artefact.files[0].write_text("a")
    elif damage == "lost":
        artefact.files[1].unlink()
    else:
        artefact.stamp.write_text("{" if damage == "stamp" else "[]")
    assert artefact.finished(fingerprint("x")) is None


def test_the_fingerprint_depends_only_on_trained_numbers() -> None:
    def model(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))

    one = model(1)
    assert weights_fingerprint(one) == weights_fingerprint(model(1))
    assert weights_fingerprint(one) != weights_fingerprint(model(2))
    one[0].requires_grad_(False)
    before = weights_fingerprint(one)
    whole = weights_fingerprint(one, trainable_only=False)
    with torch.no_grad():
        one[0].bias[0] += 1
    assert weights_fingerprint(one) == before
    assert weights_fingerprint(one, trainable_only=False) != whole
    with torch.no_grad():
        one[1].bias[-1] += 1e-6
    assert weights_fingerprint(one) != before
    assert weights_fingerprint(one.bfloat16()) != before
