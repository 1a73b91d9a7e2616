"""The Dockerfile and the environment of conda install the versions of the requirement files.

`make lint` checks the Dockerfile with hadolint, and `.ci/run` builds the image where Docker runs.
"""

import re
from fnmatch import fnmatch

import pytest
import yaml

from tests.support.paths import ROOT
from tests.test_setup import PROJECT, read_pins

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
MINOR = re.compile(r"3\.\d+")


def instructions(name: str) -> list[str]:
    """Returns the arguments of all instructions of a name, with single spaces."""
    lines = re.findall(rf"^{name} +(.+)$", DOCKERFILE, re.MULTILINE)
    return [" ".join(line.split()) for line in lines]


def environment() -> list[str | dict[str, list[str]]]:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def copied() -> list[str]:
    """Returns the files and folders that the image takes from the repository."""
    names = []
    for arguments in instructions("COPY"):
        if not arguments.startswith("--from="):
            names += arguments.split()[:-1]
    return names


def test_the_image_installs_the_pinned_requirements_and_fairseq() -> None:
    commands = " && ".join(instructions("RUN"))
    assert re.search(r"pip install [^&]*-r requirements\.txt", commands)
    (wanted,) = re.findall(
        r"^# +(READTHEDOCS=1 pip install .+)$",
        (ROOT / "requirements-fairseq.txt").read_text(),
        re.MULTILINE,
    )
    assert wanted in commands.replace("--no-cache-dir ", "")
    assert "pip install --no-cache-dir --no-deps --no-build-isolation ." in commands


def test_the_image_does_not_run_as_root() -> None:
    *_, last_stage = DOCKERFILE.split("\nFROM ")
    users = re.findall(r"^USER (\S+)$", last_stage, re.MULTILINE)
    assert users == ["1000"]
    assert "useradd --create-home --uid 1000 " in last_stage


def test_the_build_context_has_exactly_the_files_that_are_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert allowed == set(copied())
    for name in allowed:
        assert (ROOT / name).exists()
    assert any(fnmatch("mmpt/utils/__pycache__", rule) for rule in rules[1:])


def test_the_package_index_for_torch_is_the_same_as_in_the_makefile() -> None:
    (index,) = re.findall(
        r"^CPU_INDEX := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert f"TORCH_INDEX={index}" in instructions("ARG")


def test_conda_installs_the_pinned_requirements() -> None:
    *packages, pip = environment()
    assert pip == {"pip": ["-r requirements.txt"]}
    assert "pip" in packages
    pins = read_pins("requirements.txt", "requirements-dev.txt")
    for package in packages:
        name, _, version = package.partition("=")
        if version and name != "python":
            assert version == pins[name], f"environment.yml: {package}"


def test_the_python_of_image_and_conda_is_tested() -> None:
    (image,) = [each for each in instructions("ARG") if each.startswith("PYTHON_IMAGE")]
    (conda,) = [each for each in environment() if str(each).startswith("python=")]
    versions = {MINOR.search(str(each))[0] for each in (image, conda)}
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    tested = workflow["jobs"]["lint-and-test"]["strategy"]["matrix"]["python-version"]
    assert len(versions) == 1
    assert versions <= set(tested)
    assert (
        f"Programming Language :: Python :: {versions.pop()}" in PROJECT["classifiers"]
    )


@pytest.mark.parametrize("command", ["docker build", "conda env create"])
def test_the_installation_page_has_the_commands(command: str) -> None:
    page = (ROOT / "docs/install.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert any(command in block for block in blocks)
