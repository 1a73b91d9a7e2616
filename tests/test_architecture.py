"""Checks the layers of the project: every import must follow the order that is listed here."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# A module imports only from its own layer or from one listed above it.
LAYERS = (
    *(
        "errors",
        "registry",
        "batch",
        "utils",
        "config",
        "shards",
        "media",
        "processors",
    ),
    *(
        "datasets",
        "modules",
        "losses",
        "models",
        "retrieval",
        "inference",
        "evaluators",
    ),
    *("reporting", "endtasks", "tasks", "prepare", "app", "cli", "train"),
)
DATA = {"shards", "media", "processors", "datasets"}
# Layers that a layer must not import although the order allows it.
FORBIDDEN = {
    "processors": {"media"},
    "modules": {"config", *DATA},  # nn building blocks: no configuration
    "retrieval": {*DATA, "modules", "models", "losses"},  # only vectors and ids
    "prepare": {"tasks", "evaluators", "endtasks", "reporting"},
}
# Modules at published paths whose code is in a later layer: (module, layer that it may import).
PUBLISHED = {
    ("models/__init__.py", "inference"),  # `from mmpt.models import MMPTModel`
    ("utils/__init__.py", "shards"),  # `from mmpt.utils import ShardedTensor`
    # `python -m mmpt.processors.dedupprocessor`.
    ("processors/dedupprocessor.py", "cli"),
}
# Package -> the files of mmpt/ that may import it, by name or by path relative to mmpt/.
CONFINED = {
    "fairseq": ("fairseqmm*.py", "config/fairseq.py"),
    "fairseq_cli": ("fairseqmm*.py",),
    "faiss": ("retrieval/faiss_index.py", "retrieval/saved_index.py"),
    "argparse": ("cli/*.py", "fairseqmm*.py"),  # fairseq's interface uses parsers
    "typer": ("cli/*.py",),
    "subprocess": ("cli/*.py",),
    "gradio": ("app/page.py",),
    "submitit": ("cli/slurm.py",),
    "pickle": ("utils/io.py",),
    **dict.fromkeys(
        ("scripts", "tests", "benchmarks", "experiments", "locallaunch"), ()
    ),
}
# Names of these packages that every file may import. fairseq stores the settings of a checkpoint as
# a Namespace.
FREE = {"argparse.Namespace"}
# Arguments with which loading a file may run code in it.
UNSAFE_ARGUMENTS = {"weights_only=False", "allow_pickle=True"}


def imported_modules(
    tree: ast.AST, package: tuple[str, ...]
) -> Iterator[tuple[int, str]]:
    """Yields (line, dotted name) for all imports in the code of a module in `package`.

    Imports in functions, relative imports and calls of `import_module` are included.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A level of 1 is the package itself, 2 its parent, and so on.
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join(filter(None, (*base, node.module)))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call):
            lazy = ast.unparse(node.func).endswith(("import_module", "__import__"))
            names = [
                each.value for each in node.args[:1] if isinstance(each, ast.Constant)
            ]
            yield from ((node.lineno, str(name)) for name in names if lazy)


def unsafe_loads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields (line, argument) for calls that turn off the protection of a loader."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            argument = f"{node.arg}={ast.unparse(node.value)}"
            if argument in UNSAFE_ARGUMENTS:
                yield node.value.lineno, argument


def may_import(path: Path, patterns: tuple[str, ...]) -> bool:
    """Returns whether a path relative to mmpt/ matches one of the patterns.

    A pattern without a folder is compared with the name of the file.
    """
    for pattern in patterns:
        if fnmatch(path.as_posix() if "/" in pattern else path.name, pattern):
            return True
    return False


def violations(relative: str, source: str) -> list[str]:
    """Returns a line for each forbidden import in the source of a module.

    Args:
        relative: path of the module inside mmpt/.
        source: its code.
    """
    path = Path(relative)
    own = path.parts[0].removesuffix(".py")
    if own not in (*LAYERS, "__init__", "__main__"):
        return [f"mmpt/{relative}: {own} is in no layer"]
    known = LAYERS[: LAYERS.index(own) + 1] if own in LAYERS else ()
    if own == "__main__":
        known = ("cli",)
    tree = ast.parse(source, filename=relative)
    found = []
    for line, argument in unsafe_loads(tree):
        found.append(f"mmpt/{relative}:{line}: {argument} lets a file run code")
    for line, name in imported_modules(tree, ("mmpt", *path.parent.parts)):
        where = f"mmpt/{relative}:{line}: imports {name}"
        top, _, rest = name.partition(".")
        layer = rest.partition(".")[0]
        if name not in FREE and not may_import(path, CONFINED.get(top, ("*",))):
            allowed = " or ".join(CONFINED[top]) or "its own folder"
            found.append(f"{where}, which only {allowed} may import")
        is_ours = top == "mmpt" and layer not in ("", "__version__")
        if (relative, layer) in PUBLISHED:
            continue
        if is_ours and (layer not in known or layer in FORBIDDEN.get(own, ())):
            found.append(f"{where}, but {own} must not import {layer}")
    return found


def test_every_import_points_to_the_same_layer_or_one_above() -> None:
    files = sorted((ROOT / "mmpt").rglob("*.py"))
    assert len(files) > 5
    wrong: list[str] = []
    for file in files:
        wrong += violations(str(file.relative_to(ROOT / "mmpt")), file.read_text())
    assert not wrong, "\n".join(wrong)


def test_scripts_only_run_commands() -> None:
    files = [
        *(ROOT / "scripts").rglob("*.py"),
        ROOT / "locallaunch.py",
        ROOT / "mmpt/processors/dedupprocessor.py",
    ]
    assert len(files) == 9
    for file in files:
        sys_module, command = (
            name for _, name in imported_modules(ast.parse(file.read_text()), ())
        )
        assert sys_module == "sys", file
        assert re.fullmatch(r"mmpt\.cli\.\w+\.main", command), file


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("losses/nce.py", "from mmpt.tasks.task import Task"),
        ("losses/nce.py", "from mmpt import tasks"),
        ("losses/nce.py", "from ..tasks import task"),
        (
            "losses/nce.py",
            "def f():\n    import mmpt.tasks.task as task\n    return task",
        ),
        ("losses/nce.py", "import importlib\nimportlib.import_module('mmpt.tasks')"),
        ("endtasks/coin/data.py", "from ...tasks import task"),
        (
            "processors/how2.py",
            "if TYPE_CHECKING:\n    from mmpt.datasets import MMDataset",
        ),
        ("__init__.py", "from mmpt.models import MMFusionSeparate"),
        ("modules/masks.py", "from mmpt.config import ModelConfig"),
        ("losses/nce.py", "from mmpt.helpers import thing"),
        ("helpers/thing.py", "from mmpt.utils import io"),
        ("models/fairseq.py", "from fairseq.models import BaseFairseqModel"),
        ("models/utils/io.py", "import pickle"),
        ("tasks/task.py", "from subprocess import run"),
        ("cli/demo.py", "from scripts.make_demo_data import main"),
        ("models/checkpoint.py", "torch.load(path, weights_only=False)"),
        ("utils/io.py", "numpy.load(path, allow_pickle=True)"),
    ],
)
def test_the_checker_reports_violations(relative: str, source: str) -> None:
    assert len(violations(relative, source)) == 1


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        (
            "losses/nce.py",
            "from torch import nn\nfrom . import similarity\nfrom .. import errors",
        ),
        (
            "losses/nce.py",
            "from mmpt.config import LossConfig\nfrom mmpt import __version__",
        ),
        (
            "tasks/fairseqmmstep.py",
            "import argparse\nfrom fairseq.models import Base",
        ),
        ("config/fairseq.py", "from fairseq.dataclass import configs"),
        ("models/checkpoint.py", "from argparse import Namespace"),
        ("utils/io.py", "import pickle\nnumpy.load(path, allow_pickle=False)"),
    ],
)
def test_the_checker_accepts_allowed_imports(relative: str, source: str) -> None:
    assert violations(relative, source) == []


# The fairseq task, and the classes that how2_pretrain.yaml names.
TRAINING = (
    "mmpt.tasks.fairseqmmtask, mmpt.losses.nce, mmpt.losses.sequence, mmpt.models.heads, "
    "mmpt.retrieval.faiss_index"
)
# Their import takes seconds, which help and completion in the shell should not wait for.
SLOW = {"torch", "transformers", "faiss"}


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("modules", "absent", "most"),
    [
        ("mmpt", {"torch", "numpy", "transformers", "yaml", "fairseq", "faiss"}, None),
        ("mmpt.config", {"torch", "fairseq"}, None),
        (
            "mmpt.models, mmpt.processors, mmpt.evaluators, mmpt.losses",
            {"fairseq", "faiss"},
            None,
        ),
        ("mmpt.retrieval.plan, mmpt.tasks.task", {"faiss"}, None),
        ("mmpt.cli.predict", {*SLOW, "fairseq", "matplotlib"}, None),
        ("mmpt.cli.report", {*SLOW, "fairseq", "matplotlib"}, None),
        ("mmpt.cli.embed", SLOW, None),
        ("mmpt.cli.index", SLOW, None),
        ("mmpt.cli.search", SLOW, None),
        ("mmpt.cli.push", SLOW, None),
        ("mmpt.cli.prepare", SLOW, None),
        ("mmpt.processors.sampling", {"mmpt.endtasks"}, 5),
        (TRAINING, {"mmpt.endtasks"}, 90),
    ],
)
def test_an_import_loads_few_modules(
    modules: str, absent: set[str], most: int | None
) -> None:
    code = f"import sys, {modules}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    # fairseq prints to standard output on import; the names are the last line.
    loaded = done.stdout.splitlines()[-1].split()
    assert not absent & set(loaded)
    ours = [name for name in loaded if name.partition(".")[0] == "mmpt"]
    assert most is None or len(ours) <= most, ours
