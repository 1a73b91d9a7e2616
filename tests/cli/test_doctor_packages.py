"""Checks of packages, with probes that the tests replace."""

from importlib import metadata
from pathlib import Path

import pytest

from mmpt.cli import doctor_packages as packages
from mmpt.cli.doctor_probes import Facts, ProbeError

TORCH: Facts = {
    "version": "2.9",
    "cuda": "12.8",
    "gpus": [("H100 (79 GiB)", "")] * 2,
    "nccl": "2.27.3",
}


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Facts | ProbeError]:
    """The results of probes by name, for the test to fill in."""
    results: dict[str, Facts | ProbeError] = {}

    def probe(name: str, *_: float) -> Facts:
        result = results[name]
        if isinstance(result, ProbeError):
            raise result
        return result

    monkeypatch.setattr(packages, "probe", probe)
    monkeypatch.setattr(packages, "_driver", lambda: "570.1")
    return results


def test_absent_and_broken_packages(probed: dict[str, Facts | ProbeError]) -> None:
    check = packages.package_check("faiss", "pip install x")
    probed["faiss"] = ProbeError("ModuleNotFoundError: No module named 'faiss'")
    (finding,) = check()
    assert (finding.state, finding.remedy) == ("missing", "pip install x")
    probed["faiss"] = ProbeError("its import crashed (SIGILL)")
    (finding,) = check()
    assert "SIGILL" in finding.found
    whole = f"faiss-cpu=={metadata.version('faiss-cpu')}"
    assert finding.remedy == f"pip install --force-reinstall --no-deps '{whole}'"
    probed["faiss"] = {"version": "1.8"}
    (finding,) = check()
    assert (finding.state, finding.found) == ("ok", "1.8")


def test_an_incompatible_torchvision(
    probed: dict[str, Facts | ProbeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "0.28")
    probed["torchvision"] = ProbeError("RuntimeError: no operator torchvision::nms")
    (finding,) = packages.check_torchvision()
    assert finding.state == "missing"
    assert finding.found.startswith("0.28 does not work: RuntimeError: no operator")
    assert "pip uninstall torchvision" in finding.remedy
    probed["torchvision"] = {"version": "0.28"}
    (finding,) = packages.check_torchvision()
    assert finding.state == "ok"


def test_torchvision_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert list(packages.check_torchvision()) == []


@pytest.mark.parametrize(
    ("changes", "states", "text"),
    [
        ({}, ("ok", "ok", "ok"), "2 x H100 (79 GiB), CUDA 12.8, driver 570.1"),
        ({"nccl": None}, ("ok", "ok", "warning"), "2 x H100"),
        (
            {"gpus": [], "nccl": None, "cuda": None},
            ("ok", "warning", "optional"),
            "this torch is a CPU-only build",
        ),
        (
            {"gpus": [], "nccl": None},
            ("ok", "warning", "optional"),
            "finds no GPU with driver 570.1",
        ),
    ],
)
def test_gpus(
    changes: Facts,
    states: tuple[str, ...],
    text: str,
    probed: dict[str, Facts | ProbeError],
) -> None:
    probed["torch"] = TORCH | changes
    findings = list(packages.check_torch())
    assert tuple(finding.state for finding in findings) == states
    assert text in findings[1].found


@pytest.mark.parametrize(
    ("problems", "state", "remedies"),
    [
        (
            ["no kernel image", "no kernel image"],
            "missing",
            ["Install", "--device cpu"],
        ),
        (["", "no kernel image"], "warning", ["Install", "CUDA_VISIBLE_DEVICES=0"]),
        (
            ["CUDA out of memory", ""],
            "warning",
            ["nvidia-smi", "CUDA_VISIBLE_DEVICES=1"],
        ),
    ],
)
def test_unusable_gpus(
    problems: list[str],
    state: str,
    remedies: list[str],
    probed: dict[str, Facts | ProbeError],
) -> None:
    gpus = [("H100 (79 GiB)", problem) for problem in problems]
    probed["torch"] = TORCH | {"gpus": gpus}
    _, finding, _ = packages.check_torch()
    assert finding.state == state
    for number, problem in enumerate(problems):
        named = f"cuda:{number}, H100 (79 GiB): {problem}"
        assert (named in finding.found) == bool(problem)
    for remedy in remedies:
        assert remedy in finding.remedy


def test_no_gpu(
    probed: dict[str, Facts | ProbeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "_driver", lambda: "")
    probed["torch"] = TORCH | {"gpus": [], "nccl": None}
    states = [finding.state for finding in packages.check_torch()]
    assert states == ["ok", "optional", "optional"]


def test_fairseq_without_the_task(probed: dict[str, Facts | ProbeError]) -> None:
    probed["fairseq"] = {"version": "0.12", "task": False}
    (finding,) = packages.check_fairseq()
    assert finding.state == "missing"


def test_versions_are_compared_with_the_declared_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declared = [
        "torch>=99",
        "numpy>=1",
        "nowhere-to-be-found; extra == 'train'",
        "mkdocs>=99; extra == 'docs'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: declared)
    (finding,) = packages.check_requirements()
    assert finding.state == "warning"
    torch = f"torch {metadata.version('torch')} must be >=99"
    assert finding.found == f"{torch}; nowhere-to-be-found is not installed"


HUB: Facts = {"cached": False, "offline": False, "problem": "", "url": "https://hub"}


@pytest.mark.parametrize(
    ("changes", "states", "text"),
    [
        ({}, ("ok", "ok"), "https://hub answers"),
        ({"cached": True}, ("ok", "ok"), "https://hub answers"),
        ({"problem": "refused"}, ("warning", "warning"), "does not answer (refused)"),
        (
            {"problem": "refused", "cached": True},
            ("warning", "ok"),
            "does not answer (refused)",
        ),
        ({"offline": True}, ("optional", "warning"), "HF_HUB_OFFLINE is set"),
        ({"offline": True, "cached": True}, ("optional", "ok"), "HF_HUB_OFFLINE"),
    ],
)
def test_the_hub_and_bert(
    changes: Facts,
    states: tuple[str, str],
    text: str,
    probed: dict[str, Facts | ProbeError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    probed["hub"] = HUB | changes
    hub, bert = packages.check_hub()
    assert (hub.state, bert.state) == states
    assert text in hub.found
    # The hub is also checked if BERT is on this machine.
    Path("bert-base-uncased").mkdir()
    Path("bert-base-uncased/config.json").touch()
    hub, bert = packages.check_hub()
    assert (hub.state, bert.state) == (states[0], "ok")


def test_the_hub_is_not_checked_without_huggingface_hub(
    probed: dict[str, Facts | ProbeError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    probed["hub"] = ProbeError("ModuleNotFoundError: No module named 'huggingface_hub'")
    hub, bert = packages.check_hub()
    assert (hub.state, bert.state) == ("warning", "warning")
    assert hub.found.startswith("check failed (ModuleNotFoundError: No module")
    assert hub.remedy == packages.INSTALL_TRAIN
