"""All commands of DATASET.md, run in order on small data, have the described results.

Videos, captions and annotations are tiny. All downloads come from a server on this machine, and the
weights of S3D and BERT are random. The commands run as they are written, with the additional
arguments in `ADDED`.
"""

import io
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mmpt.cli.main import main
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.shardedtensor import open_shard
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support import misbehaving_server as server
from tests.support import recipe_data
from tests.support.forked import run_forked
from tests.support.paths import ROOT
from tests.support.recipe_data import BROKEN, MINE, TEST_SETS, TRAIN, VAL

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "DATASET.md").read_text()

# Part of a command -> arguments that it needs on small data. {site} is the server.
ADDED = {
    "make-demo-data": "--num-videos 16 --num-val 8",
    "mmpt download [^-]": "--mirror {site}",
    "mmpt check .*/how2": "dataset.num_video_per_batch=1 num_cands=1 dataset.max_missing=0.5",
    "mine/pretrain.yaml --jobtype": (
        "fairseq.optimization.max_epoch=2 fairseq.dataset.num_workers=0"
    ),
}


@dataclass
class Command:
    """A command of the page, the output that the page shows for it, and its result."""

    text: str
    shown: list[str] = field(default_factory=list)
    code: int | None = None
    output: str = ""


def read_page() -> list[Command]:
    """Returns the commands of all `bash` blocks of the page.

    A `text` block shows output of the last command before it.
    """
    commands: list[Command] = []
    for language, block in re.findall(
        r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
    ):
        if language == "bash":
            lines = block.replace("\\\n", " ").splitlines()
            commands += [Command(line) for line in lines if line.strip()]
        elif language == "text":
            commands[-1].shown += block.splitlines()
    return commands


# ---- running the commands


def run(command: Command, site_url: str) -> None:
    """Runs a command and stores its result.

    It runs in this process, because importing torch takes seconds. The launcher starts processes
    and therefore runs in a fork.
    """
    arguments = shlex.split(command.text)
    for part, added in ADDED.items():
        if re.search(part, command.text):
            arguments += added.format(site=site_url).split()
    program = arguments.pop(0)
    if program != "mmpt" or arguments[0] == "train":
        if program == "mmpt":
            done = run_forked("mmpt.cli.main:main", arguments, cwd=Path.cwd())
        else:
            done = subprocess.run(
                [program, *arguments],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
                env=os.environ | {"PYTHONPATH": os.getcwd()},
            )
        command.code, command.output = done.returncode, done.stdout + done.stderr
        return
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    logging.getLogger().addHandler(handler)
    try:
        with redirect_stdout(output), redirect_stderr(output):
            command.code = main(arguments)
    finally:
        logging.getLogger().removeHandler(handler)
    command.output = output.getvalue()


@dataclass
class Recipe:
    root: Path
    commands: list[Command]
    site_url: str


@pytest.fixture(scope="module")
def recipe(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recipe]:
    """The commands of the page, after they ran in a folder with the layout of the project."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("projects", "scripts"):
        shutil.copytree(ROOT / name, root / name)
    (root / "mmpt").symlink_to(ROOT / "mmpt")
    recipe_data.make_videos(root)
    recipe_data.make_captions(root / "raw/mine")
    recipe_data.put_by_hand(root)
    commands = read_page()
    level = logging.getLogger().level
    with pytest.MonkeyPatch.context() as patch, server.running_site() as site:
        patch.chdir(root)
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        logging.getLogger().setLevel(logging.INFO)
        bert = recipe_data.save_bert(corpus, tmp_path_factory.mktemp("bert"))
        recipe_data.serve_downloads(site, bert)
        for command in commands:
            run(command, site.url)
            if command.code:
                break
        yield Recipe(root, commands, site.url)
    logging.getLogger().setLevel(level)
    load_tokenizer.cache_clear()  # other tests use the same names for other files
    open_shard.cache_clear()


def test_every_command_runs(recipe: Recipe) -> None:
    for command in recipe.commands:
        assert command.code == 0, f"{command.text}\n{command.output}"
    assert len(recipe.commands) >= 20


def test_every_added_argument_belongs_to_a_command() -> None:
    for part in ADDED:
        assert any(re.search(part, command.text) for command in read_page()), part


def test_all_commands_are_in_blocks() -> None:
    """A command outside of a block is not run by these tests."""
    outside = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"`(?:mmpt|python|sh|make|pip|[A-Z]+=\S+) [^`]*`", outside) == []


def test_commands_print_what_the_page_shows(recipe: Recipe) -> None:
    """The words are the same. The numbers may differ."""
    shown = [(command, line) for command in recipe.commands for line in command.shown]
    assert len(shown) >= 6
    for command, line in shown:
        pattern = r"[\d.,]+".join(map(re.escape, re.split(r"\d[\d.,]*", line)))
        assert re.search(rf"^{pattern}$", command.output, re.MULTILINE), (
            f"{command.text}: {line}\n{command.output}"
        )


def test_every_video_has_one_feature_file(recipe: Recipe) -> None:
    folders = {"data/feat/feat_how2_s3d": [*TRAIN, *VAL], "data/mine/feat": MINE}
    for command in recipe.commands:
        if match := re.search(
            r"mmpt extract --vdir raw/(\S+) --fdir (\S+)", command.text
        ):
            folders.setdefault(match[2], [TEST_SETS.get(match[1], "")])
    assert len(folders) == len(TEST_SETS) + 2
    for folder, ids in folders.items():
        assert sorted(
            path.stem for path in (recipe.root / folder).glob("*.npy")
        ) == sorted(ids)
        for name in ids:
            features = np.load(recipe.root / folder / f"{name}.npy")
            assert (features.shape, features.dtype) == ((1, 512), np.float16)
            # Measured 3e-5.
            assert np.linalg.norm(features[0].astype(np.float32)) == pytest.approx(
                1, abs=1e-3
            )


def test_unusable_videos_are_listed(recipe: Recipe) -> None:
    features = recipe.root / "data/feat"
    summary = json.loads((features / "feat_how2_s3d/extract_summary.json").read_text())
    assert list(summary["failed"]) == [BROKEN]
    unpacked = (
        features / "feat_how2_s3d_shard_small/train_not_packed.json"
    ).read_text()
    assert list(json.loads(unpacked)) == [BROKEN]


def test_the_page_makes_every_file_that_the_yamls_name(recipe: Recipe) -> None:
    """The commands make every path below data/ that a YAML in projects/ names."""
    found = set()
    # The features of this YAML come from a model of the hub; see docs/guides/own-videos.md.
    others = {"how2_pretrain_clip.yaml"}
    paths = [p for p in (ROOT / "projects").rglob("*.yaml") if p.name not in others]
    for path in sorted(paths):
        dataset = (yaml.safe_load(path.read_text()) or {}).get("dataset") or {}
        for key, value in dataset.items():
            if isinstance(value, str) and value.startswith("data/"):
                where = f"{path.relative_to(ROOT)}: `dataset.{key}` is {value}"
                assert list(recipe.root.glob(f"{value}*")), (
                    f"{where}, which DATASET.md does not make"
                )
                found.add(value)
    assert len(found) >= 9


def test_training_on_the_users_videos_writes_a_checkpoint(recipe: Recipe) -> None:
    weights = load_checkpoint(recipe.root / "runs/mine/norton/checkpoint_last.pt")[
        "model"
    ]
    start = load_checkpoint(recipe.root / "runs/retri/videoclip/checkpoint_best.pt")[
        "model"
    ]
    before = {name: start[name.removeprefix("mmmodel.")] for name in weights}
    moved = [
        name
        for name, tensor in weights.items()
        if not torch.equal(tensor, before[name])
    ]
    assert moved
    assert all("LayerNorm" in name for name in moved)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def made_files(root: Path) -> dict[Path, bytes]:
    """Returns the contents of all data files and YAMLs, without reports about the last run."""
    suffixes = (
        ".npy",
        ".lst",
        ".jsonl",
        ".csv",
        ".yaml",
        "_meta.json",
        ".zip",
        ".pth",
        ".pkl",
    )
    folders = (root / name for name in ("data", "pretrained_models", "projects"))
    paths = (path for folder in folders for path in folder.rglob("*"))
    return {path: path.read_bytes() for path in paths if path.name.endswith(suffixes)}


def test_a_second_run_changes_nothing(recipe: Recipe) -> None:
    """All commands except for training and checks are run again. This must be the last test."""
    before = made_files(recipe.root)
    assert len(before) > 60
    for command in read_page():
        if re.match("mmpt (train|check) ", command.text):
            continue
        run(command, recipe.site_url)
        assert command.code == 0, f"{command.text}\n{command.output}"
        if "mmpt download" in command.text and "--list" not in command.text:
            assert "already there and intact" in command.output
            assert ": downloaded" not in command.output
        if "mmpt extract" in command.text:
            assert "0 videos written" in command.output
    assert made_files(recipe.root) == before
