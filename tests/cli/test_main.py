"""The command `mmpt`: its help, its imports, and errors in the command line."""

import os
import runpy
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mmpt
from mmpt.cli.main import COMMANDS, main
from tests.support.jobs import VIDEOCLIP
from tests.support.paths import ROOT

PUBLISHED = {
    "scripts/check_dataset.py": "check",
    "scripts/download.py": "download",
    "scripts/make_demo_data.py": "make-demo-data",
    "scripts/prepare.py": "prepare",
    "scripts/text_token_extractor/pretokenization.py": "tokenize",
    "scripts/video_feature_extractor/extract.py": "extract",
    "scripts/video_feature_extractor/shard_feature.py": "pack",
    "mmpt/processors/dedupprocessor.py": "dedup",
}


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, panel, summary) in COMMANDS.items():
        assert name in shown
        assert panel in shown
        assert summary in shown


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("train", 75, "run the same command again to continue"),
        ("pack", 138, "nothing was done; run the same command again"),
    ],
)
def test_a_signal_before_a_command_begins(
    name: str,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted_import(_: str) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr("mmpt.cli.main.importlib.import_module", interrupted_import)
    assert main([name]) == code
    assert capsys.readouterr().err == f"interrupted; {message}\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mmpt {mmpt.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_page_and_refuses_unknown_options(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    assert f"mmpt {name} [OPTIONS]" in capsys.readouterr().out
    assert main([name, "--no-such-option", VIDEOCLIP]) == 2
    error = capsys.readouterr().err
    assert "--no-such-option" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "line", ["", "trian x.yaml", "train", "predict", "embed --model x"]
)
def test_a_wrong_command_line_ends_with_2(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out + captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(("path", "name"), PUBLISHED.items())
def test_a_published_path_runs_the_command(path: str, name: str) -> None:
    module = import_module(f"mmpt.cli.{COMMANDS[name][0]}")
    assert runpy.run_path(str(ROOT / path))["main"] is module.main


def test_locallaunch_is_mmpt_train(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["locallaunch.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / "locallaunch.py"), run_name="__main__")
    assert "mmpt train [OPTIONS]" in capsys.readouterr().out


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("line", "code"), [("--help", 0), ("train --help", 0), ("train nowhere.yaml", 2)]
)
def test_python_dash_m_mmpt_does_not_import_torch_for_help_and_mistakes(
    line: str, code: int
) -> None:
    command = [sys.executable, "-v", "-m", "mmpt", *line.split()]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert "import 'mmpt.cli" in done.stderr
    assert "import 'torch" not in done.stderr


def test_a_missing_package_is_reported_with_the_extra_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in list(sys.modules):
        if name.startswith(("mmpt.cli.extract", "mmpt.media")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["extract", "--vdir", "x", "--fdir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith(
        "Install it with: pip install 'mmpt[prepare]'\n"
    )


@pytest.mark.spawn
@pytest.mark.skipif(sys.platform != "linux", reason="sets the cores of a process")
def test_commands_take_the_cores_that_they_may_use() -> None:
    code = """
import inspect, os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.cpu_count = lambda: 64
from mmpt.cli import check, pack, tokenize
for function in (check.check, pack.pack, tokenize.tokenize):
    print(inspect.signature(function).parameters["workers"].default)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"] * 3
