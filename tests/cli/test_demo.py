"""The demo's four commands: the README's for seed 0, and the same on other folders for any other seed."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from mmpt.cli import demo
from mmpt.config import RunConfig, load_config
from tests.jobs import NORTON, ROOT, SCORES, VIDEOCLIP


def configs(seed: int, monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The three YAMLs as the demo's commands change them."""
    monkeypatch.chdir(ROOT)
    commands = demo.demo_commands(seed)[1:]
    return [load_config(yaml, [word for word in rest if "=" in word]) for _, yaml, *rest in commands]


def test_seed_0_runs_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    make, *launches = (shlex.join(["python", *command]) for command in demo.demo_commands(0))
    assert make == "python scripts/make_demo_data.py --out data/demo --seed 0"
    for launch, yaml in zip(launches, (VIDEOCLIP, NORTON, SCORES), strict=True):
        assert f"python locallaunch.py {yaml} --jobtype" in launch
        assert launch in readme


def test_another_seed_shares_no_path_with_seed_0(monkeypatch: pytest.MonkeyPatch) -> None:
    make = demo.demo_commands(7)[0]
    assert make[1:] == ["--out", "data/demo7", "--seed", "7"]
    for config, standard in zip(configs(7, monkeypatch), configs(0, monkeypatch), strict=True):
        for part in ("dataset", "eval"):
            mine, theirs = vars(getattr(config, part)), vars(getattr(standard, part))
            assert {key for key, value in theirs.items() if "demo" in str(value)} <= {
                key for key, value in mine.items() if "demo7/" in str(value)
            }
        paths = [*config.checkpoint_paths, config.option("checkpoint", "save_dir", "demo7/")]
        paths.append(config.option("checkpoint", "restore_file", "demo7/"))
        assert all("demo7/" in path for path in paths)


def test_another_seed_trains_with_another_seed_from_its_own_videoclip(monkeypatch: pytest.MonkeyPatch) -> None:
    videoclip, norton, scores = configs(7, monkeypatch)
    assert videoclip.seed == norton.seed == 8
    best = str(Path(videoclip.save_dir) / "checkpoint_best.pt")
    assert norton.option("checkpoint", "restore_file") == best
    assert scores.checkpoint_paths == (best, str(Path(norton.save_dir) / "checkpoint_best.pt"))


def test_the_first_failure_ends_the_demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [0, 2]
    monkeypatch.setattr(
        demo.subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, codes.pop(0))
    )
    assert demo.main([]) == 2
    said = capsys.readouterr()
    assert said.out.count("$ python") == 2
    assert "error: this command ended with exit code 2" in said.err


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.subprocess, "run", interrupted)
    assert demo.main([]) == 130
    assert "run it again" in capsys.readouterr().err
