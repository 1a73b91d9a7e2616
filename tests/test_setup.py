"""The set-up: pinned versions, the packages of the extras, and the decisions of the Makefile."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mmpt
from tests.support.paths import ROOT

REQUIREMENTS = ("requirements.txt", "requirements-dev.txt", "requirements-fairseq.txt")
# fairseq declares these packages, but does not import them. `pip check` reports them; see
# requirements-fairseq.txt.
UNMET = {"cffi", "cython", "torchaudio"}
# Packages that a CUDA build of torch installs and pins.
CUDA = re.compile(r"nvidia-|cuda-|triton$")


def read_pins(*files: str) -> dict[str, str]:
    """Returns package name -> version from requirement files. Each package is pinned once."""
    pins: dict[str, str] = {}
    for line in "\n".join((ROOT / file).read_text() for file in files).splitlines():
        words = line.partition(" #")[0].split()
        if words and not words[0].startswith(("#", "-")):
            name, _, version = words[0].partition("==")
            assert version, f"{line!r} pins no version"
            assert canonicalize_name(name) not in pins, f"{name} is pinned twice"
            pins[canonicalize_name(name)] = version
    return pins


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def ranges(*extras: str) -> list[Requirement]:
    """Returns the requirements of the core and of some extras, without references to extras."""
    texts = [
        *PROJECT["dependencies"],
        *(text for extra in extras for text in EXTRAS[extra]),
    ]
    return [need for need in map(Requirement, texts) if need.name != "mmpt"]


def test_pins_are_within_the_ranges_of_pyproject() -> None:
    pins = read_pins("requirements.txt", "requirements-dev.txt")
    for need in ranges(*EXTRAS):
        pin = pins[canonicalize_name(need.name)]
        assert need.specifier.contains(pin), (
            f"pyproject.toml asks for {need}, the pin is {pin}"
        )


def test_every_direct_requirement_is_in_pyproject() -> None:
    pins = (ROOT / "requirements.txt").read_text()
    direct = pins.partition("# -- needed by the packages above")[0]
    pinned = re.findall(r"^([\w-]+)==", direct, re.M)
    assert len(set(pinned)) == len(pinned)
    assert set(pinned) == {
        need.name for need in ranges("train", "prepare", "report", "app")
    }


def test_dev_includes_every_other_extra() -> None:
    needs = {need.name: need for need in map(Requirement, EXTRAS["dev"])}
    # Aim does not exist for every platform and version of Python. An extra that contains others
    # cannot depend on that, so `dev` names the package.
    assert needs["mmpt"].extras == set(EXTRAS) - {"dev", "aim"}
    assert needs["aim"].specifier == Requirement(*EXTRAS["aim"]).specifier


def test_pins_are_complete_and_compatible() -> None:
    """The requirements of every pinned package are pinned too, in a version that it accepts.

    The requirements are read from this environment.
    """
    pins = read_pins(*REQUIREMENTS)
    checked = 0
    for name in pins:
        try:
            needs = [Requirement(text) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue
        for need in needs:
            key = canonicalize_name(need.name)
            if key in UNMET or CUDA.match(key):
                continue
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert key in pins, (
                    f"{name} needs {need}, which no requirements file pins"
                )
                pin = pins[key]
                assert need.specifier.contains(pin), (
                    f"{name} needs {need}, the pin is {pin}"
                )
                checked += 1
    assert checked > 40


@pytest.mark.spawn
def test_pip_check_reports_only_explained_problems() -> None:
    command = [sys.executable, "-m", "pip", "check"]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    ours = [
        line
        for line in output.splitlines()
        if line.startswith(("fairseq", "mmpt", "torch "))
    ]
    assert {line.split(" requires ")[1].split(",")[0] for line in ours} <= UNMET, output


def assert_runs(code: str) -> None:
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.spawn
def test_fairseq_trains_without_its_unused_requirements() -> None:
    unloaded = "{'torchaudio', 'cffi', 'Cython'}"
    assert_runs(
        f"import sys, fairseq_cli.train; assert not {unloaded} & set(sys.modules)"
    )


# Import names of the packages of each extra, without those that torch and fairseq install anyway.
ADDED = {
    "train": {
        "faiss",
        "fairseq",
        "hydra",
        "psutil",
        "sacrebleu",
        "sklearn",
        "tensorboardX",
    },
    "prepare": {"av", "json_stream", "langcodes", "matplotlib", "PIL"},
    "report": {"av", "matplotlib", "PIL"},
    "app": {"av", "faiss", "gradio", "json_stream", "langcodes", "matplotlib", "PIL"},
}


CLI = "cli.embed cli.predict cli.compare cli.launch cli.make_demo_data cli.download"
TRAIN = "tasks.fairseqmmtask tasks.fairseqmmstep retrieval.retriever"
PREPARE = (
    "cli.extract cli.prepare cli.pack cli.tokenize cli.dedup cli.check "
    "prepare.check.statistics"
)


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("extra", "modules"),
    [
        ("", f"inference.mmptmodel {CLI}"),
        ("train", TRAIN),
        ("prepare", PREPARE),
        ("report", "cli.report reporting.figures reporting.frames"),
        ("app", "cli.app app.results app.transcripts inference.moment_index"),
    ],
)
def test_each_extra_installs_what_its_commands_import(extra: str, modules: str) -> None:
    hidden = set().union(*ADDED.values()) - ADDED.get(extra, set())
    imports = ", ".join(f"mmpt.{module}" for module in modules.split())
    assert_runs(
        f"import sys\nsys.modules.update(dict.fromkeys({hidden}))\nimport {imports}"
    )


def test_citation_names_the_version_of_the_package() -> None:
    assert f"\nversion: {mmpt.__version__}\n" in (ROOT / "CITATION.cff").read_text()


# A fake Python that records how it was called. `-m venv` copies it to .venv/bin/python.
FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
    *version_info*) exit $OLD ;;
    *ensurepip*) exit $NO_VENV ;;
    *urlopen*) exit $OFFLINE ;;
    "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"-r requirements-fairseq.txt"*) echo "READTHEDOCS=$READTHEDOCS" >> "$CALLS"; exit $BROKEN ;;
    --version) echo "Python 3.9.1" ;;
esac
"""


class Sandbox:
    """A copy of the Makefile with a fake Python, to test `make` without installing anything."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.calls = folder / "calls.txt"
        for name in ("Makefile", "pyproject.toml", *REQUIREMENTS):
            shutil.copy(ROOT / name, folder)
        (folder / "python").write_text(FAKE_PYTHON)
        (folder / "python").chmod(0o755)

    def make(
        self, *arguments: str, path: str = os.defpath, **exit_codes: int
    ) -> subprocess.CompletedProcess:
        """Runs make. `exit_codes` are the exit codes of the fake Python, by variable."""
        self.calls.write_text("")
        answers = {"OLD": 0, "NO_VENV": 0, "OFFLINE": 1, "BROKEN": 0} | exit_codes
        env = {name: str(code) for name, code in answers.items()}
        env |= {"PATH": path, "CALLS": str(self.calls)}
        command = ["make", f"PYTHON={self.folder}/python", *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )

    def pip_calls(self) -> list[str]:
        """Returns the arguments of the calls of pip, in order."""
        calls = self.calls.read_text().splitlines()
        return [line for line in calls if line.startswith("-m pip install")]


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    if shutil.which("make", path=os.defpath) is None:
        pytest.skip("needs make")
    return Sandbox(tmp_path)


has_gpu = (
    Path("/dev/nvidia0").exists()
    or shutil.which("nvidia-smi", path=os.defpath) is not None
)


def test_setup_installs_once_and_in_order(sandbox: Sandbox) -> None:
    assert sandbox.make("setup").returncode == 0
    first, fairseq, itself = sandbox.pip_calls()
    assert first.endswith("-r requirements-dev.txt")
    assert fairseq.endswith(
        "--no-deps --no-build-isolation -r requirements-fairseq.txt"
    )
    assert itself.endswith("--no-deps --no-build-isolation -e .")
    assert "READTHEDOCS=1" in sandbox.calls.read_text()
    assert sandbox.make("setup").returncode == 0
    assert sandbox.pip_calls() == [], "a second make setup has nothing to do"


@pytest.mark.parametrize("file", [*REQUIREMENTS, "pyproject.toml"])
def test_setup_is_redone_when_its_files_change(sandbox: Sandbox, file: str) -> None:
    sandbox.make("setup")
    later = (sandbox.folder / ".venv/.ready").stat().st_mtime + 10
    os.utime(sandbox.folder / file, (later, later))
    sandbox.make("test")
    assert len(sandbox.pip_calls()) == 3


def test_interrupted_setup_is_redone(sandbox: Sandbox) -> None:
    assert sandbox.make("setup", BROKEN=1).returncode != 0
    assert (sandbox.folder / ".venv/bin/python").exists()
    assert sandbox.make("test").returncode == 0
    assert len(sandbox.pip_calls()) == 3
    # No file of the interrupted set-up is left.
    assert "-m venv --clear .venv" in sandbox.calls.read_text()
    assert "-m pytest" in sandbox.calls.read_text()


@pytest.mark.skipif(
    has_gpu, reason="this machine has a GPU: PyPI's CUDA build is the right one"
)
@pytest.mark.parametrize(
    ("arguments", "offline", "index"),
    [
        ([], 0, "--extra-index-url https://download.pytorch.org/whl/cpu -r"),
        ([], 1, "install -r"),
        (["TORCH_INDEX="], 0, "install -r"),
        (
            ["TORCH_INDEX=https://other/whl"],
            1,
            "--extra-index-url https://other/whl -r",
        ),
    ],
)
def test_torch_comes_from_the_cpu_index_if_it_answers(
    sandbox: Sandbox, arguments: list[str], offline: int, index: str
) -> None:
    sandbox.make("setup", *arguments, OFFLINE=offline)
    assert index in sandbox.pip_calls()[0]


def test_torch_comes_from_pypi_on_a_machine_with_a_gpu(sandbox: Sandbox) -> None:
    """A program called nvidia-smi on the PATH is the sign of a GPU."""
    (sandbox.folder / "nvidia-smi").symlink_to("/bin/true")
    sandbox.make("setup", path=f"{sandbox.folder}:{os.defpath}", OFFLINE=0)
    assert "install -r" in sandbox.pip_calls()[0]
    assert "urlopen" not in sandbox.calls.read_text()


@pytest.mark.parametrize(
    ("exit_codes", "message"),
    [
        (
            {"OLD": 1},
            "needs Python 3.11 or newer, but .*python is Python 3.9.1. Name another: make",
        ),
        ({"NO_VENV": 1}, "has no venv module. Install it .*python3-venv"),
    ],
)
def test_an_unsuitable_python_is_an_error_before_anything_is_made(
    sandbox: Sandbox, exit_codes: dict[str, int], message: str
) -> None:
    done = sandbox.make("demo", **exit_codes)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert not (sandbox.folder / ".venv").exists()


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    commands = [line for line in lines if line.startswith("make ")]
    assert commands == ["make lint", "make docs", "make test"]


def test_the_workflow_runs_every_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["lint-and-test"]
    versions = job["strategy"]["matrix"]["python-version"]
    named = {f"Programming Language :: Python :: {version}" for version in versions}
    assert named <= set(PROJECT["classifiers"])
    assert len(named) == 3
