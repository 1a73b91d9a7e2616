"""In a new environment and an empty folder, the wheel can make the demo data and train on it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.support.jobs import VIDEOCLIP, corpus_overrides
from tests.support.paths import ROOT

pytestmark = pytest.mark.e2e

# Packages that `[train]` does not install. (Jinja2 and filelock come with torch.)
BLOCKED = ("av", "matplotlib", "PIL", "pytest")


def run(*command: object, folder: Path) -> str:
    """Runs a command without the variables of this environment, and returns its output."""
    env = {"PATH": os.defpath, "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment with the wheel.

    The packages that the wheel needs come from the environment of the tests.
    """
    top = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]

    # The wheel is built from a copy, because setuptools leaves build/ and *.egg-info in the folder.
    source = top / "source"
    shutil.copytree(
        ROOT / "mmpt", source / "mmpt", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        source,
        "-w",
        top,
        folder=top,
    )

    # A path file adds the packages of this environment. Path files among them are not read, so that
    # an editable mmpt is not found. A second path file hides what `[train]` does not install.
    venv.create(top / "env", with_pip=False, symlinks=True)
    programs = top / "env" / "bin"
    (site,) = (top / "env").glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "hide.pth").write_text(
        f"import sys; sys.modules.update(dict.fromkeys({BLOCKED}))\n"
    )
    (wheel,) = top.glob("mmpt-*.whl")
    target = ("--python", programs / "python")
    run(*pip, *target, "install", "--no-deps", "--ignore-installed", wheel, folder=top)

    # An installation of fairseq would create this script.
    lines = (Path(sys.executable).parent / "fairseq-train").read_text().splitlines()
    trainer = programs / "fairseq-train"
    trainer.write_text("\n".join([f"#!{programs / 'python'}", *lines[1:]]))
    trainer.chmod(0o755)
    return programs


def test_the_installed_package_is_complete(programs: Path, tmp_path: Path) -> None:
    code = "import mmpt; print(mmpt.__file__, mmpt.__version__)"
    file, version = run(programs / "python", "-c", code, folder=tmp_path).split()
    package = Path(file).parent
    assert package.is_relative_to(programs.parent)
    assert run(programs / "mmpt", "--version", folder=tmp_path) == f"mmpt {version}\n"
    assert files_of(package) == files_of(ROOT / "mmpt")


def files_of(package: Path) -> set[Path]:
    paths = (path for path in package.rglob("*") if path.is_file())
    return {
        path.relative_to(package) for path in paths if "__pycache__" not in path.parts
    }


def test_an_empty_folder_trains(programs: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "projects", tmp_path / "projects")
    mmpt = programs / "mmpt"
    sizes = ("--num-videos", "32", "--num-val", "8", "--shard-size", "20")
    run(mmpt, "make-demo-data", "--out", "data/demo", *sizes, folder=tmp_path)
    overrides = corpus_overrides(Path("data/demo"), Path("runs/demo"))
    command = [mmpt, "train", VIDEOCLIP, "--jobtype", "local_small", *overrides]
    output = run(*command, "fairseq.optimization.max_epoch=1", folder=tmp_path)
    assert "  epoch 1/1  validation " in output
    log = (tmp_path / "runs/demo/train.log").read_text()
    assert f"--user-dir {programs.parent}/lib/" in log
    assert "| valid | epoch 001 " in log
    assert (tmp_path / "runs/demo/checkpoint_best.pt").is_file()
    assert {path.name for path in tmp_path.iterdir()} <= {
        "projects",
        "data",
        "runs",
        ".cache",
    }
