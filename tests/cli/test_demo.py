"""`mmpt demo`: with seed 0, it runs the five commands of the README.

With any other seed, only the seed and the folders differ.
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
    """Returns the configs of the demo's commands, in order. Copies are written to `folder`."""
    copies = demo.demo_yamls(seed) if seed else {}
    for path, values in copies.items():
        write_yaml(folder / path, values)
    found = []
    for _, yamls, *_ in demo.demo_commands(seed)[1:]:
        for path in yamls.split(","):
            found.append(load_config(folder / path if path in copies else path))
    return found


def test_seed_0_runs_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    make, *launches = (
        shlex.join(["mmpt", *command]) for command in demo.demo_commands(0)
    )
    assert make == "mmpt make-demo-data --out data/demo --seed 0"
    for launch, yaml in zip(
        launches, (VIDEOCLIP, demo.PLAIN, NORTON, SCORES), strict=True
    ):
        assert f"mmpt train {yaml}" in launch
    for command in (make, *launches):
        assert f"\n{command}\n" in readme


@pytest.mark.slow
def test_another_seed_changes_only_the_seed_and_the_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    assert demo.demo_commands(7)[0][1:] == ["--out", "data/demo7", "--seed", "7"]
    copies, originals = configs(7, tmp_path), configs(0, tmp_path)
    assert len(copies) == len(originals) == 6
    for copy, original in zip(copies, originals, strict=True):
        wanted = original
        if not copy.is_test:
            assert copy.option("common", "seed") == 8
            wanted = original.with_option("common", "seed", 8)
        text = str(copy.to_dict())
        assert "demo7/" in text
        assert "demo/" not in text
        assert text.replace("demo7/", "demo/") == str(wanted.to_dict())


def test_another_seed_scores_its_own_checkpoints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    videoclip, plain, norton, *scores = configs(7, tmp_path)
    trainings = (videoclip, plain, norton)
    last = tuple(f"{each.save_dir}/checkpoint_last.pt" for each in trainings)
    for continued in (plain, norton):
        assert continued.option("checkpoint", "restore_file") == last[0]
    for score in scores:
        assert score.checkpoint_paths == last
    assert len({score.eval.save_path for score in scores}) == len(scores)


def test_only_the_loss_of_the_control_differs_from_norton(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    _, plain, norton, *_ = configs(0, tmp_path)
    assert (plain.save_dir, norton.save_dir) == ("runs/demo/plain", "runs/demo/norton")
    text = str(plain.to_dict() | {"loss": None})
    assert text.replace("demo/plain", "demo/norton") == str(
        norton.to_dict() | {"loss": None}
    )
    assert plain.loss.sequence_contrast is plain.loss.sinkhorn_iterations is None
    assert norton.loss.sequence_contrast is not None


def test_the_first_failure_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = [0, 2]

    def fake_run(
        command: list[str], check: bool, env: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        copies = (tmp_path / "runs" / "demo3" / "yaml").rglob("*.yaml")
        assert len(list(copies)) == 6
        return subprocess.CompletedProcess(command, codes.pop(0))

    (tmp_path / "projects").symlink_to(ROOT / "projects")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo.subprocess, "run", fake_run)
    assert demo.main(["--seed", "3"]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("$ mmpt") == 2
    assert "error: this command ended with exit code 2" in captured.err


def test_missing_yamls_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in ("0", "3"):
        assert demo.main(["--seed", seed]) == 2
        assert f"{VIDEOCLIP}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
