"""A run that continues with another number of processes trains on all batches of its plan."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.utils.metrics_log import read_metrics
from tests.support.forked import run_forked

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def runs(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The folder of the runs, their exit codes, and how much their weights differ."""
    folder = tmp_path_factory.mktemp("sizes")
    done = run_forked("tests.support.other_sizes:main", [corpus, folder])
    assert (folder / "results.json").exists(), done.stderr[-3000:]
    return folder, json.loads((folder / "results.json").read_text())


def updates(save_dir: Path) -> list[tuple[int, int]]:
    """Returns the number and the clips of every update."""
    rows = read_metrics(save_dir)
    return [(row["update"], int(row["bsz"])) for row in rows if row["split"] == "train"]


@pytest.mark.parametrize("name", ["2 to 1", "1 to 2"])
def test_updates_are_the_same_if_their_size_is_kept(
    name: str, runs: tuple[Path, dict[str, Any]]
) -> None:
    """The results differ only by rounding, because gradients are added in another order.

    The BERT of the small corpus has no dropout.
    """
    folder, results = runs
    killed, continued = results["codes"][name]
    assert any(killed)
    assert not any(continued)
    assert results["worst"][name] < 2e-4
    assert results["worst"]["smaller updates"] > 2e-4  # other updates exceed the bound
    rows = []
    for each in ("whole", name):
        metrics = read_metrics(folder / each)
        rows.append([row for row in metrics if row["split"] == "train"])
    for one, other in zip(*rows, strict=True):
        assert one["update"] == other["update"]
        assert one["loss"] == pytest.approx(other["loss"], abs=2e-3)


def test_no_batch_is_left_out_if_updates_become_smaller(
    runs: tuple[Path, dict[str, Any]],
) -> None:
    """Before the kill, three updates of two batches are made and two are saved. The plan has 8."""
    folder, results = runs
    assert results["codes"]["smaller updates"][1] == [0]
    clips = [128, 128, 64, 64, 64, 64]
    assert updates(folder / "smaller updates") == list(enumerate(clips, 1))


def test_a_batch_is_repeated_if_updates_become_larger(
    runs: tuple[Path, dict[str, Any]],
) -> None:
    """Three batches are saved. The first update with two processes repeats the third one."""
    folder, results = runs
    assert results["codes"]["odd"][1] == [0, 0]
    clips = [64, 64, 64, 128, 128, 128]
    assert updates(folder / "odd") == list(enumerate(clips, 1))
