"""The instructions in the documents work: commands resolve, links are valid, and examples run."""

import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmpt.batch import Split
from mmpt.cli.main import COMMANDS, DATA, DEMO, main
from mmpt.config import DatasetConfig, ModelConfig, load_config, save_resolved
from mmpt.evaluators import write_results
from mmpt.models import MMFusionSeparate
from tests.support.help_texts import help_of
from tests.support.jobs import corpus_overrides
from tests.support.paths import ROOT
from tests.support.sample_trainings import write_run

DOCUMENTS = (
    "README.md",
    "pretraining.md",
    "DATASET.md",
    "endtask.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "docs/ablations.md",
    "docs/demo.md",
    "docs/experiments.md",
    "docs/install.md",
    "docs/guides/embed-and-search.md",
    "docs/guides/jobs.md",
    "docs/guides/new-parts.md",
)
README = ROOT / "README.md"
NEW_PARTS = "docs/guides/new-parts.md"
EMBED = "docs/guides/embed-and-search.md"
PANELS = (DATA, DEMO)
"""Headings of the commands that prepare data."""


def blocks(document: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```",
        (ROOT / document).read_text(),
        re.MULTILINE | re.DOTALL,
    )


def commands(prefix: str, documents: tuple[str, ...] = DOCUMENTS) -> list[str]:
    text = "\n".join(block for name in documents for block in blocks(name, "bash"))
    return sorted({line for line in text.splitlines() if line.startswith(prefix)})


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the layout of the project's root, to which commands may write."""
    for name in ("projects", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "locallaunch.py", tmp_path)
    (tmp_path / "mmpt").symlink_to(ROOT / "mmpt")
    return tmp_path


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command, streams = (
        [sys.executable, *arguments],
        {"capture_output": True, "text": True},
    )
    return subprocess.run(
        command, cwd=folder, env=env, timeout=300, check=False, **streams
    )


@pytest.mark.slow
def test_every_launch_command_of_the_documents_resolves(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    lines = commands(
        "mmpt train", tuple(name for name in DOCUMENTS if name != "DATASET.md")
    )
    # The commands of DATASET.md need earlier results. tests/e2e/test_recipe.py runs them.
    assert len(lines) >= 6
    for line in lines:
        code = main([*shlex.split(line)[1:], "--dryrun"])
        captured = capsys.readouterr()
        assert code == 0, line + captured.err
        assert captured.out.splitlines()[-1].startswith("launching "), line


def test_every_command_of_the_documents_has_its_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for line in commands("mmpt "):
        shown = help_of(shlex.split(line)[1:], capsys)
        for flag in re.findall(r" (--[a-z_-]+)", line):
            assert flag in shown, line


@pytest.mark.slow
def test_the_commands_that_report_and_compare_runs_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs/demo/videoclip")
    best = write_run(tmp_path / "runs/demo/norton") / "checkpoint_best.pt"
    write_results(
        tmp_path / "runs/demo/results/results.json",
        [{"checkpoint": str(best), "fingerprint": "f", "metrics": {"M": {"R1": 0.5}}}],
        settings={},
        chance={},
    )
    lines = [
        *commands("mmpt report", ("pretraining.md",)),
        *commands("mmpt compare", ("pretraining.md",)),
    ]
    assert len(lines) == 2
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0
        page = tmp_path / capsys.readouterr().out.splitlines()[-1]
        assert page.name in (ROOT / "pretraining.md").read_text()
        assert page.exists()


def test_every_command_that_the_text_names_exists() -> None:
    for name in DOCUMENTS:
        for command in re.findall(r"`mmpt ([a-z][a-z-]*)", (ROOT / name).read_text()):
            assert command in COMMANDS, f"{name}: mmpt {command}"


def test_every_data_command_is_in_the_data_page() -> None:
    """The commands of the data page are run by tests/e2e/test_recipe.py."""
    lines = [
        line for line in commands("mmpt ") if COMMANDS[line.split()[1]][1] in PANELS
    ]
    assert len(lines) > 10
    assert set(lines) <= set(commands("mmpt ", ("DATASET.md",)))


def test_every_make_target_of_the_documents_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name in DOCUMENTS:
        named = r"\bmake (demo|test|lint|bench|setup|clean)\b"
        assert set(re.findall(named, (ROOT / name).read_text())) <= set(targets)


def test_the_documents_install_mmpt_from_its_folder() -> None:
    """A package index may have another package of this name."""
    for name in DOCUMENTS:
        assert "mmpt[" not in (ROOT / name).read_text(), name


def test_every_link_leads_to_a_file_or_heading() -> None:
    for name in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)]+)\)", (ROOT / name).read_text()):
            path, _, heading = target.partition("#")
            file = (ROOT / name).parent / path if path else ROOT / name
            assert file.exists(), f"{name}: {target}"
            if heading:
                titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
                words = (re.sub(r"[^a-z0-9 -]", "", title.lower()) for title in titles)
                slugs = [title.replace(" ", "-") for title in words]
                assert heading in slugs, f"{name}: {target}"


def test_the_yaml_in_the_document_equals_the_file() -> None:
    def check(part: dict, whole: dict, where: str) -> None:
        for key, value in part.items():
            if isinstance(value, dict):
                check(value, whole[key], f"{where}.{key}")
            else:
                assert whole[key] == value, f"{where}.{key}"

    whole = yaml.safe_load(
        (ROOT / "projects/retri/norton/how2_pretrain.yaml").read_text()
    )
    check(
        yaml.safe_load(blocks("pretraining.md", "yaml")[0]), whole, "how2_pretrain.yaml"
    )


@pytest.mark.e2e
def test_the_worked_example_trains(corpus: Path, checkout: Path) -> None:
    (checkout / "my_parts.py").write_text(blocks(NEW_PARTS, "python")[0])
    (checkout / "projects" / "mine.yaml").write_text(blocks(NEW_PARTS, "yaml")[0])
    overrides = corpus_overrides(corpus, checkout / "run")
    arguments = [
        "locallaunch.py",
        "projects/mine.yaml",
        "--jobtype",
        "local_single",
        *overrides,
    ]
    done = run([*arguments, "fairseq.optimization.max_epoch=1"], checkout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert re.search(r"  epoch 1/1  validation .* margin ", done.stdout)


def example_parts() -> dict[str, Any]:
    parts: dict[str, Any] = {"__name__": "my_parts"}
    exec(blocks(NEW_PARTS, "python")[0], parts)
    return parts


def test_the_example_loss_takes_negatives_of_all_processes() -> None:
    loss_cls = example_parts()["MarginLoss"]
    loss = loss_cls(loss_cls.Config(gather_negatives=True))
    pooled = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    output = loss(pooled_video=pooled, pooled_text=pooled)
    # 0.5 for each clip and its own caption. The others, 0.5 - 4 and 0.5 - 1, count as 0.
    assert output.total == pytest.approx(2 * 0.5 / 4)


@pytest.mark.parametrize("fps", [0.5, 1, 2])
def test_the_example_aligner_centres_the_rows_of_any_rate(
    corpus: Path, fps: float
) -> None:
    aligner_cls = example_parts()["MiddleAligner"]
    lengths = {"sampled_min_len": 8, "sampled_max_len": 32}
    video_lengths = {"sampled_video_min_len": 3, "sampled_video_max_len": 16}
    config = aligner_cls.Config(
        bert_name=str(corpus / "bert"),
        feature_fps=fps,
        max_video_len=16,
        max_len=48,
        clip_per_video=1,
        **lengths,
        **video_lengths,
    )
    aligner = aligner_cls(config, Split.TRAIN)
    num_rows = int(100 * fps)
    for seed in range(20):
        start, end = aligner.video_span(num_rows, 40.0, 44.0, random.Random(seed))
        assert (end - start) / fps == 16
        assert start / fps <= 42 <= end / fps


def test_the_readme_shows_a_part_of_the_worked_example() -> None:
    readme = blocks("README.md", "python")[1]
    example = blocks(NEW_PARTS, "python")[0]
    for statement in readme.strip().split("\n\n\n"):
        assert statement in example
    (shown,) = re.findall(
        r"`projects/mine.yaml` then contains `(.+?)`", README.read_text()
    )
    whole = yaml.safe_load(blocks(NEW_PARTS, "yaml")[0])
    assert yaml.safe_load(shown)["loss"] == whole["loss"]


def test_the_readme_fits_on_three_screens() -> None:
    assert len(README.read_text().splitlines()) <= 130


def test_the_guide_shows_the_inference_example_of_the_readme() -> None:
    assert blocks(EMBED, "python")[0] == blocks("README.md", "python")[0]


@pytest.mark.spawn
def test_the_inference_example_of_the_readme_runs(corpus: Path, tmp_path: Path) -> None:
    model = MMFusionSeparate.from_config(
        DatasetConfig(bert_name=str(corpus / "bert"), max_video_len=16, max_len=48),
        ModelConfig(num_hidden_video_layers=2),
        pretrained=False,
    )
    torch.save({"model": model.state_dict()}, tmp_path / "checkpoint_best.pt")
    overrides = [
        f"dataset.bert_name={corpus}/bert",
        f"eval.save_path={tmp_path}",
        "fairseq.common_eval.path=x.pt",
    ]
    save_resolved(
        load_config("projects/retri/norton/test_how2_demo_zs.yaml", overrides),
        tmp_path / "test.yaml",
    )
    example = blocks("README.md", "python")[0].replace(
        "projects/retri/norton/test_how2_demo_zs.yaml", "test.yaml"
    )
    features = (
        "import numpy as np\n"
        "features = np.random.default_rng(0).standard_normal((40, 512))\n"
    )
    end = "\nprint(scores.shape, alignment.plan.shape)\nMMPTModel.from_pretrained('my_model')"
    done = run(["-c", features + example + end], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([1, 2]) (2, 40)"


@pytest.mark.spawn
def test_python_examples_of_the_data_page_run(corpus: Path) -> None:
    (example,) = blocks("DATASET.md", "python")
    done = run(["-c", example.replace("data/demo", str(corpus))], ROOT)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"20 \(\d+, 512\) float16\n", done.stdout)
