"""Imports of packages in a separate process."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmpt.cli.doctor_probes import PROBES, ProbeError, probe

pytestmark = pytest.mark.spawn


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be imported. It is not the current folder."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_the_version_of_a_package(packages: Path) -> None:
    module = "print('fairseq prints, too')\n__version__ = '1.2'"
    (packages / "whole.py").write_text(module)
    assert probe("whole") == {"version": "1.2"}


@pytest.mark.parametrize(
    ("code", "message", "is_absent"),
    [
        ("import not_there", "No module named 'not_there'", True),
        ("raise OSError('libx.so is broken')", "libx.so is broken", False),
        ("import os; os.abort()", "crashed (SIGABRT)", False),
        ("import os; os._exit(3)", "its import failed", False),
    ],
)
def test_failures(packages: Path, code: str, message: str, is_absent: bool) -> None:
    (packages / "broken.py").write_text(code)
    with pytest.raises(ProbeError) as caught:
        probe("broken")
    assert message in str(caught.value)
    assert caught.value.is_absent == is_absent


def test_an_import_that_hangs(packages: Path) -> None:
    (packages / "slow.py").write_text("import time; time.sleep(600)")
    with pytest.raises(ProbeError, match="did not end within 1 s"):
        probe("slow", timeout_s=1)


@pytest.mark.parametrize(
    ("offline", "problem"), [("0", "refused"), ("1", "")], ids=["refused", "offline"]
)
def test_the_hub_is_asked_once(
    offline: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    facts = probe("hub")
    assert facts["url"] == "http://127.0.0.1:9"
    assert facts["offline"] == (offline == "1")
    assert problem in facts["problem"]
    assert bool(problem) == bool(facts["problem"])


def test_every_gpu_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three is too old for torch, and the driver does not even describe the third."""

    def describe(number: int) -> SimpleNamespace:
        if number == 2:
            raise RuntimeError("the driver is too old")
        return SimpleNamespace(name=f"Model {number}", total_memory=80 * 2**30)

    def try_out(device: str) -> str:
        return {"cuda:0": ""}.get(device, "no kernel image")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", describe)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    monkeypatch.setattr("mmpt.utils.device_check.device_problem", try_out)
    assert PROBES["torch"]()["gpus"] == [
        ("Model 0 (80 GiB)", ""),
        ("Model 1 (80 GiB)", "no kernel image"),
        ("GPU 2", "no kernel image"),
    ]
