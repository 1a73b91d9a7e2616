"""The demo's four commands: the README's for seed 0, and the same on other folders for any other
seed.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from mmpt.cli import demo
from mmpt.config import RunConfig, load_config
from mmpt.config.yaml_files import write_yaml
from tests.jobs import NORTON, ROOT, SCORES, VIDEOCLIP


def configs(seed: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[RunConfig]:
    """The YAMLs of the demo's commands, in their order; copies are written to `folder`."""
    monkeypatch.chdir(ROOT)
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


def test_another_seed_shares_no_path_with_seed_0(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make = demo.demo_commands(7)[0]
    assert make[1:] == ["--out", "data/demo7", "--seed", "7"]
    mine, theirs = configs(7, monkeypatch, tmp_path), configs(0, monkeypatch, tmp_path)
    assert len(mine) == len(theirs) == 6
    for config, standard in zip(mine, theirs, strict=True):
        texts, others = str(config.to_dict()), str(standard.to_dict())
        assert texts.count("demo7/") == others.count("demo/") > 0
        assert "demo/" not in texts


def test_another_seed_trains_with_another_seed_from_its_own_videoclip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    videoclip, norton, *scores = configs(7, monkeypatch, tmp_path)
    assert videoclip.seed == norton.seed == 8
    best = str(Path(videoclip.save_dir) / "checkpoint_best.pt")
    assert norton.option("checkpoint", "restore_file") == best
    for score in scores:
        assert score.checkpoint_paths == (best, str(Path(norton.save_dir) / "checkpoint_best.pt"))
    assert len({score.eval.save_path for score in scores}) == len(scores)


def test_other_settings_are_those_of_seed_0(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for mine, theirs in zip(
        configs(7, monkeypatch, tmp_path), configs(0, monkeypatch, tmp_path), strict=True
    ):
        if not mine.is_test:
            mine = mine.with_option("common", "seed", theirs.option("common", "seed"))
            theirs = theirs.with_option("common", "seed", theirs.option("common", "seed"))
        assert str(mine.to_dict()).replace("demo7/", "demo/") == str(theirs.to_dict())


def test_the_first_failure_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = [0, 2]
    monkeypatch.setattr(
        demo.subprocess,
        "run",
        lambda command, check: subprocess.CompletedProcess(command, codes.pop(0)),
    )
    assert demo.main([]) == 2
    said = capsys.readouterr()
    assert said.out.count("$ mmpt") == 2
    assert "error: this command ended with exit code 2" in said.err


def test_copies_are_written_before_the_first_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "projects").symlink_to(ROOT / "projects")
    monkeypatch.chdir(tmp_path)

    def stop(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert len(list((tmp_path / "runs" / "demo3" / "yaml").rglob("*.yaml"))) == 6
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(demo.subprocess, "run", stop)
    assert demo.main(["--seed", "3"]) == 1


def test_outside_the_project_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in ("0", "3"):
        assert demo.main(["--seed", seed]) == 2
        assert f"{VIDEOCLIP}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.subprocess, "run", interrupted)
    assert demo.main([]) == 130
    assert "run it again" in capsys.readouterr().err
