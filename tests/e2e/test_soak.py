"""A soak test of a few thousand clips passes, and it finds deliberate leaks and wrong items.

`make soak` does the same for a million clips.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from torch.utils.data import get_worker_info

from benchmarks.results import commit
from mmpt.batch import ClipBatch
from mmpt.datasets import MMDataset
from tests.support.leaks import growth, rise, shared_memory
from tests.support.paths import ROOT
from tests.support.plain_batches import EPOCHS, make_dataset, plain_digests
from tests.support.soak import excesses, soak, soak_loader

pytestmark = pytest.mark.e2e

NUM_BATCHES = 60  # of an epoch
PAGE = "before\n<!-- soak -->\nold\n<!-- end of soak -->\nafter\n"


def test_a_few_thousand_clips_and_three_refreshes_pass(
    corpus: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    folder = tmp_path / "soak"
    folder.mkdir()
    (folder / "corpus").symlink_to(corpus)
    command = [
        sys.executable,
        "-m",
        "tests.support.soak",
        str(folder),
        "--write",
        str(page),
    ]
    command += ["--items", "3840", "--workers", "0,2", "--refreshes", "3"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    parts = [json.loads(line) for line in (folder / "parts.jsonl").open()]
    assert [part["part"] for part in parts] == ["0 workers", "2 workers", "refreshes"]
    assert [part["amount"] for part in parts] == [3840, 3840, 3]
    text = page.read_text()
    assert text.startswith("before\n<!-- soak -->\nSource: `")
    assert text.endswith("<!-- end of soak -->\nafter\n")
    assert "| result |  | PASS | PASS | PASS |" in text


class GrowingDataset(MMDataset):
    """A data set that keeps 1 MB of every item."""

    kept: list[np.ndarray]

    def item(self, index: int, epoch: int) -> ClipBatch:
        self.kept = [*getattr(self, "kept", []), np.ones(125_000)]
        return super().item(index, epoch)


class OpeningDataset(MMDataset):
    """A data set that opens files for every item and never closes them.

    A loader worker opens 14 files for an item, because it makes few items.
    """

    files: list[IO[str]]

    def item(self, index: int, epoch: int) -> ClipBatch:
        num_files = 14 if get_worker_info() else 1
        new = [open(os.devnull) for _ in range(num_files)]  # noqa: SIM115
        self.files = [*getattr(self, "files", []), *new]
        return super().item(index, epoch)


class WrongDataset(MMDataset):
    """A data set that changes one number of one item in each epoch."""

    def item(self, index: int, epoch: int) -> ClipBatch:
        batch = super().item(index, epoch)
        if index == 3:
            batch["caps"][7, 2] += 1
        return batch


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    data = make_dataset(tmp_path_factory.mktemp("plain"))
    return np.fromiter(plain_digests(data.aligner, NUM_BATCHES), np.uint64)


@pytest.mark.parametrize(
    ("kind", "num_workers", "found"),
    [
        (MMDataset, 0, []),
        (GrowingDataset, 0, ["main process, MB"]),
        (GrowingDataset, 1, ["worker, MB"]),
        (OpeningDataset, 0, ["open files"]),
        (OpeningDataset, 1, ["open files, worker"]),
        (WrongDataset, 0, ["different batches"]),
    ],
)
def test_leaks_and_wrong_items_are_found(
    tmp_path: Path,
    digests: np.ndarray,
    kind: type[MMDataset],
    num_workers: int,
    found: list[str],
) -> None:
    values = soak_loader(make_dataset(tmp_path, kind), digests, num_workers)
    if found:
        # A leak may also be visible in the memory.
        assert set(found) <= set(excesses(values)), values
    else:
        assert excesses(values) == [], values
    assert values["different batches"] == (EPOCHS if kind is WrongDataset else 0)


def test_the_command_fails_if_a_value_exceeds_its_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No part runs, because all parts are finished according to a file."""
    line: dict[str, Any] = {"commit": commit(), "date": "2026-11-29", "minutes": 1.0}
    good = line | {"part": "0 workers", "amount": 256, "values": {"processes": 0}}
    bad = line | {"part": "refreshes", "amount": 3, "values": {"open files": 3}}
    text = "".join(json.dumps(part) + "\n" for part in (good, bad))
    (tmp_path / "parts.jsonl").write_text(text)
    options = argparse.Namespace(
        folder=tmp_path, items=200, workers="0", refreshes=3, write=None
    )
    assert soak(options, "make soak") == 1
    output = capsys.readouterr().out
    assert "PASS: 0 workers, 256" in output
    assert "FAIL: refreshes, 3" in output
    assert "FAIL open files: 3, at most 2" in output
    assert "| result |  | PASS | FAIL |" in output
    assert (tmp_path / "parts.jsonl").read_text() == text


def test_growth_is_measured_in_the_second_half() -> None:
    assert growth([0, 50, 90, 100, 100, 100, 100]) == pytest.approx(0)
    assert growth([0, 0, 0, 0, 1, 2, 3, 4]) == pytest.approx(3)
    assert growth([5.0]) == 0


def test_the_rise_ignores_temporary_values() -> None:
    assert rise([9, 9, 9, 9, 5, 9, 9, 5]) == 0
    assert rise([1, 2, 3, 4, 5, 6, 7, 8]) == 2


def test_shared_memory_lists_a_leftover_file() -> None:
    before = shared_memory()
    path = Path(f"/dev/shm/torch_{os.getpid()}_soak_0")
    path.touch()
    try:
        assert set(shared_memory()) - set(before) == {path.name}
    finally:
        path.unlink()
