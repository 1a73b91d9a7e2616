"""The command `mmpt`: its help, its imports, and errors in the command line."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import mmpt
from mmpt.cli.main import COMMANDS, choose_device, main
from mmpt.errors import LaunchError
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
def test_a_script_at_a_published_path_runs_its_command(path: str, name: str) -> None:
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
    ("line", "code"),
    [
        ("--help", 0),
        ("train --help", 0),
        ("train nowhere.yaml", 2),
        ("search nowhere", 2),
        ("prepare --captions nowhere", 2),
        ("push model not/a/name", 2),
    ],
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


@pytest.mark.parametrize(
    ("name", "named"), [(None, "cuda (the default)"), ("cuda", "cuda")]
)
def test_an_unusable_gpu_gives_one_error(
    name: str | None, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    problem = "CUDA error: no kernel image is available"
    monkeypatch.setattr("mmpt.utils.device_check.device_problem", lambda _: problem)
    with pytest.raises(LaunchError) as caught:
        choose_device(name)
    message = str(caught.value)
    assert message.startswith(f"--device {named}: ")
    assert problem in message
    assert "`--device cpu`" in message


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
        "See docs/install.md#install-into-your-own-environment\n"
    )


@pytest.mark.spawn
@pytest.mark.skipif(sys.platform != "linux", reason="sets the cores of a process")
def test_commands_use_only_the_cores_that_they_are_allowed() -> None:
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


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("tr", ["train"]),
        ("train x.yaml --jobty", ["--jobtype"]),
        ("train x.yaml --jobtype local_s", ["local_single", "local_small"]),
        ("extract --dtype ", ["fp32", "bf16", "fp16"]),
        ("prepare --recipe n", ["norton"]),
        ("predict --device c", ["cpu", "cuda"]),
        ("download s3", ["s3d"]),
    ],
)
def test_the_shell_completes_commands_options_and_values(
    words: str,
    completions: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("_MMPT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"mmpt {words}")
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ") + 1))
    assert main([]) == 0
    assert capsys.readouterr().out.split() == completions


@pytest.mark.parametrize("name", ["train", "predict", "check", "report", "tokenize"])
def test_a_yaml_is_completed_by_the_shell_as_a_file(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_MMPT_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"mmpt {name} proj")
    assert main([]) == 0
    assert capsys.readouterr().out == "_files\n"


@pytest.mark.spawn
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script_that_mmpt_prints(tmp_path: Path) -> None:
    program = tmp_path / "mmpt"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mmpt "$@"\n')
    program.chmod(0o755)
    script = """
eval "$(_MMPT_COMPLETE=source_bash mmpt)"
COMP_WORDS=(mmpt download b) COMP_CWORD=2
_mmpt_completion mmpt
echo "${COMPREPLY[@]}"
complete -p mmpt
"""
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    completions, registered = done.stdout.splitlines()
    assert completions == "bert"
    # If there are no completions, `-o default` completes the names of files.
    assert "-o default" in registered
