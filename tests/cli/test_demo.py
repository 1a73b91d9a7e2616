"""The demo's four commands: the README's for seed 0, and the same on other folders for any other
seed.
"""

import shlex
import subprocess
from pathlib import Path

import pytest

from mmpt.cli import demo
from mmpt.config import RunConfig, load_config
from mmpt.config.yaml_files import write_yaml
from tests.support.jobs import NORTON, SCORES, VIDEOCLIP
from tests.support.paths import ROOT


def configs(seed: int, folder: Path) -> list[RunConfig]:
    """The YAMLs of the demo's commands, in their order; copies are written to `folder`."""
    copies = demo.demo_yamls(seed) if seed else {}
    for path, values in copies.items():
        write_yaml(folder / path, values)
    paths = [path for _, yamls, *_ in demo.demo_commands(seed)[1:] for path in yamls.split(",")]
    return [load_config(folder / path if path in copies else path) for path in paths]


def test_seed_0_runs_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    make, *launches = (shlex.join(["mmpt", *command]) for command in demo.demo_commands(0))
    assert make == "mmpt make-demo-data --out data/demo --seed 0"
    for launch, yaml in zip(launches, (VIDEOCLIP, NORTON, SCORES), strict=True):
        assert f"mmpt train {yaml}" in launch
    for command in (make, *launches):
        assert f"\n{command}\n" in readme


def test_another_seed_differs_by_the_seed_and_the_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    assert demo.demo_commands(7)[0][1:] == ["--out", "data/demo7", "--seed", "7"]
    mine, theirs = configs(7, tmp_path), configs(0, tmp_path)
    assert len(mine) == len(theirs) == 6
    for config, standard in zip(mine, theirs, strict=True):
        texts, others = str(config.to_dict()), str(standard.to_dict())
        assert texts.count("demo7/") == others.count("demo/") > 0
        assert "demo/" not in texts
        if not config.is_test:
            assert config.option("common", "seed") == 8
            one = standard.with_option("common", "seed", 8)
            others = str(one.to_dict())
        assert texts.replace("demo7/", "demo/") == others
    videoclip, norton, *scores = mine
    best = str(Path(videoclip.save_dir) / "checkpoint_best.pt")
    assert norton.option("checkpoint", "restore_file") == best
    for score in scores:
        assert score.checkpoint_paths == (best, str(Path(norton.save_dir) / "checkpoint_best.pt"))
    assert len({score.eval.save_path for score in scores}) == len(scores)


def test_the_first_failure_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = [0, 2]

    def finish(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert len(list((tmp_path / "runs" / "demo3" / "yaml").rglob("*.yaml"))) == 6
        return subprocess.CompletedProcess(command, codes.pop(0))

    (tmp_path / "projects").symlink_to(ROOT / "projects")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo.subprocess, "run", finish)
    assert demo.main(["--seed", "3"]) == 2
    said = capsys.readouterr()
    assert said.out.count("$ mmpt") == 2
    assert "error: this command ended with exit code 2" in said.err


def test_outside_the_project_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in ("0", "3"):
        assert demo.main(["--seed", seed]) == 2
        assert f"{VIDEOCLIP}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
