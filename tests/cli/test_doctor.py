"""`mmpt doctor`: its exit code and output, with broken packages too."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console

from mmpt.cli import doctor
from mmpt.cli.doctor_uses import USES
from mmpt.cli.finding import Finding
from mmpt.cli.main import main
from tests.support.paths import ROOT

OK = Finding("first", "ok", "1.0")
WARNING = Finding("second", "warning", "small", "enlarge it")
MISSING = Finding("third", "missing", "not installed", "pip install third")


def check_first() -> Iterable[Finding]:
    yield OK


def check_second_thing() -> Iterable[Finding]:
    yield WARNING
    raise RuntimeError("boom")


def check_third() -> Iterable[Finding]:
    yield MISSING


def test_a_check_that_fails_does_not_stop_the_others() -> None:
    findings = doctor.run_checks([check_second_thing, check_first])
    assert findings == [
        Finding("second thing", "warning", "could not be checked (RuntimeError: boom)"),
        OK,
    ]


@pytest.mark.parametrize(
    ("checks", "code", "end"),
    [
        ([check_first], 0, "Training can run here."),
        (
            [check_first, check_third],
            1,
            "Training cannot run here, because of: third.",
        ),
    ],
)
def test_the_exit_code_shows_whether_training_is_possible(
    checks: list[doctor.Check],
    code: int,
    end: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert doctor.report(checks, to_json=False) == code
    *lines, blank, last = capsys.readouterr().out.splitlines()
    assert (blank, last) == ("", end)
    assert lines[1].split() == ["ok", "first", "1.0"]
    assert lines[0].index("check") == lines[1].index("first")  # aligned


def test_a_terminal_shows_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Console(force_terminal=True, width=60, color_system="standard")
    monkeypatch.setattr("mmpt.cli.output.Console", lambda: terminal)
    assert doctor.report([check_first, check_third], to_json=False) == 1
    shown = capsys.readouterr().out
    assert "───" in shown
    assert "\x1b[1;31mmissing" in shown


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.report([check_first, check_third], to_json=True) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["can_train"] is False
    third, training = result["checks"][1:3]
    assert third == {
        "name": "third",
        "state": "missing",
        "found": "not installed",
        "remedy": "pip install third",
    }
    assert (training["name"], training["state"]) == ("training", "missing")
    several = result["checks"][3]
    assert several["found"] == "does not work, because of: third"


@pytest.mark.spawn
def test_this_environment_can_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    states = {check["name"]: check["state"] for check in checks}
    for name in ("Python", "mmpt", "torch", "numpy", "transformers", "faiss", "av"):
        assert states[name] == "ok"
    for name in ("training", "preparation", "inference", "search page"):
        assert states[name] == "ok"
    assert states["model hub"] in ("ok", "warning", "optional")
    # An unknown name would count as a check that is ok. Torchvision may be absent.
    needed = {name for use in USES for name in use.needs}
    assert needed - {"torchvision"} <= set(states)
    (fairseq,) = (check for check in checks if check["name"] == "fairseq")
    assert "`mmtask`" in fairseq["found"]


@pytest.mark.spawn
def test_broken_packages_are_reported_like_others(tmp_path: Path) -> None:
    """Without NumPy, pydantic and OmegaConf, `mmpt` can do nothing else."""
    raising = "raise ImportError('libxyz.so: cannot open shared object file')"
    for name in ("numpy", "pydantic", "omegaconf", "yaml", "psutil", "packaging"):
        (tmp_path / f"{name}.py").write_text(raising)
    (tmp_path / "faiss.py").write_text("import os\nos.abort()")
    (tmp_path / "av.py").write_text("raise ModuleNotFoundError('No module named av')")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "mmpt", "doctor", "--json"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["numpy"]["state"] == "missing"
    assert "libxyz.so" in checks["numpy"]["found"]
    assert "--force-reinstall" in checks["numpy"]["remedy"]
    assert checks["faiss"]["state"] == "missing"
    assert "SIGABRT" in checks["faiss"]["found"]
    assert checks["fairseq"]["state"] == "missing"
    assert checks["av"]["state"] == "optional"
    assert checks["av"]["remedy"] == "pip install 'mmpt[prepare]'"
    assert checks["inference"]["state"] == "optional"
    assert "torch" in checks["inference"]["found"]
    assert checks["memory"]["state"] == "warning"
    assert checks["disk"]["state"] in ("ok", "warning")
