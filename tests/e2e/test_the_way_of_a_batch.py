"""Compares the files that a traced run enters with the files that the documentation lists."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jobs import NORTON, QUICK, RELEASED, corpus_overrides
from tests.support.paths import ROOT

pytestmark = pytest.mark.e2e
START = "From the command to the training process"
PAGE = ROOT / "docs/concepts/the-way-of-a-batch.md"
HELPERS = ("mmpt/utils/", "mmpt/config/", "mmpt/errors.py", "mmpt/registry.py")
"""Files that the page leaves out: settings, and small helpers that the whole package uses."""


def named_files() -> dict[str, list[str]]:
    """Returns the files that each section of the page links, by its heading."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[
        1:
    ]
    return {
        section.splitlines()[0]: re.findall(
            r"^\d+\. \[`([^`]+\.py)`\]", section, re.MULTILINE
        )
        for section in sections
    }


@pytest.fixture(scope="module")
def entered(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, set[str]]:
    """The files that the start, the first step and the refresh of a small Norton run enter."""
    folder = tmp_path_factory.mktemp("traced")
    traces = folder / "traces"
    traces.mkdir()
    options = ["fairseq.optimization.max_update=1", "fairseq.dataset.num_workers=0"]
    # Batches are loaded when they are needed, and not by a thread in advance.
    options += ["fairseq.dataset.data_buffer_size=0"]
    options += ["fairseq.checkpoint.restore_file=null"]
    options += ["fairseq.checkpoint.reset_optimizer=false"]
    # The page ends with the step, before validation and checkpoints.
    options += ["fairseq.dataset.disable_validation=true"]
    options += ["fairseq.checkpoint.no_save=true"]
    overrides = [*corpus_overrides(corpus, folder / "run"), *QUICK, *RELEASED]
    overrides += options
    script = [sys.executable, "-m", "tests.support.traced_training", str(traces)]
    run = subprocess.run(
        [*script, NORTON, "--jobtype", "local_single", *overrides],
        cwd=ROOT,
        # A forked process, which is traced, cannot use a GPU.
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    files: dict[str, set[str]] = {"start": set(), "step": set(), "refresh": set()}
    for trace in traces.iterdir():
        for name, paths in json.loads(trace.read_text()).items():
            files[name] |= {path for path in paths if is_on_the_page(path)}
    return files


def is_on_the_page(path: str) -> bool:
    """Returns whether the page must name a file that is entered."""
    return not path.startswith(HELPERS) and not path.endswith("__init__.py")


def test_every_named_file_exists_and_is_named_once() -> None:
    names = [name for section in named_files().values() for name in section]
    assert len(names) > 25
    assert len(set(names)) == len(names)
    assert [name for name in names if not (ROOT / name).is_file()] == []


def test_the_page_lists_the_files_of_the_start(entered: dict[str, set[str]]) -> None:
    sections = named_files()
    start = sections.pop(START)
    assert start[0] == "locallaunch.py"
    later = {name for section in sections.values() for name in section}
    assert set(start[1:]) == entered["start"] - later


def test_the_page_lists_the_files_of_a_step(entered: dict[str, set[str]]) -> None:
    sections = named_files()
    named = {
        *sections["From the list to the batch"],
        *sections["From the batch to the gradient"],
    }
    assert named == entered["step"]


def test_the_page_lists_the_files_of_the_refresh(entered: dict[str, set[str]]) -> None:
    sections = named_files()
    # The refresh builds its own data set, with files of the start.
    built = set(sections[START])
    assert set(sections["The refresh"]) == entered["refresh"] - entered["step"] - built
