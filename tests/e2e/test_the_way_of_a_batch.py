"""Compares the files that a traced training step enters with those that the documentation names."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.cli.training_command import training_command
from mmpt.config import load_config
from mmpt.config.loader import save_resolved
from tests.support.jobs import NORTON, QUICK, corpus_overrides
from tests.support.paths import ROOT

pytestmark = pytest.mark.e2e
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
) -> dict[str, list[str]]:
    """The files that the first step and the refresh of a small Norton training enter."""
    folder = tmp_path_factory.mktemp("traced")
    yaml = folder / "run.yaml"
    options = ["fairseq.optimization.max_update=1", "fairseq.dataset.num_workers=0"]
    # Batches are loaded when they are asked for, not by a thread in advance.
    options += [
        "fairseq.dataset.data_buffer_size=0",
        "fairseq.checkpoint.restore_file=null",
    ]
    options += [f"fairseq.common.tensorboard_logdir={folder}/run"]
    overrides = [*corpus_overrides(corpus, folder), *QUICK, *options]
    config = load_config(
        NORTON, [*overrides, "fairseq.checkpoint.reset_optimizer=false"]
    )
    save_resolved(config, yaml)
    command = training_command(config, str(yaml), 1, 1, 0, resume=True)
    script = [sys.executable, "-m", "tests.support.traced_training", *command]
    run = subprocess.run(
        [*script, "--disable-validation", "--no-save"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    line = next(line for line in run.stdout.splitlines() if line.startswith('{"step"'))
    files: dict[str, list[str]] = json.loads(line)
    for name, paths in files.items():
        files[name] = [
            path
            for path in paths
            if not path.startswith(HELPERS) and not path.endswith("__init__.py")
        ]
    return files


def test_every_named_file_exists() -> None:
    names = [name for section in named_files().values() for name in section]
    assert len(names) > 25
    assert [name for name in names if not (ROOT / name).is_file()] == []


def test_the_page_names_the_files_of_a_step(entered: dict[str, list[str]]) -> None:
    sections = named_files()
    named = {
        *sections["From the list to the batch"],
        *sections["From the batch to the gradient"],
    }
    assert named == set(entered["step"])


def test_the_page_names_the_files_of_the_refresh(entered: dict[str, list[str]]) -> None:
    sections = named_files()
    # A data set of its own.
    built = set(sections["From the command to the training process"])
    more = set(entered["refresh"]) - set(entered["step"]) - built
    assert set(sections["The refresh"]) == more
