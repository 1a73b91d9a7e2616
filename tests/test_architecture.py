"""Proves the layering: walks every import of the project with ast and compares it with the order
written here.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A module imports only from its own layer or from one listed above it.
LAYERS = (
    *("errors", "registry", "batch"),
    *(
        "utils",
        "config",
        "shards",
        "media",
        "processors",
        "datasets",
        "modules",
        "losses",
        "models",
        "retrieval",
    ),
    *("inference", "evaluators", "endtasks", "tasks", "reporting", "prepare", "cli"),
)
# Layers that know even less than the order allows.
UNKNOWN_TO = {
    "processors": {"media"},
    "modules": {
        "config",
        "shards",
        "media",
        "processors",
        "datasets",
    },  # nn building blocks: no configuration
    "retrieval": {
        "shards",
        "media",
        "processors",
        "datasets",
        "modules",
        "models",
        "losses",
    },  # vectors and ids only
    "prepare": {"tasks", "evaluators", "endtasks", "reporting"},
}
# Published names whose code lives elsewhere: (module, layer that it may import although it stands
# further down).
PUBLISHED = {
    ("models/__init__.py", "inference"),  # `from mmpt.models import MMPTModel`
    ("utils/__init__.py", "shards"),  # `from mmpt.utils import ShardedTensor`
    ("processors/dedupprocessor.py", "cli"),  # `python -m mmpt.processors.dedupprocessor`
}
# Packages that only certain files of mmpt/ may import (a file's name, or its path relative to
# mmpt/).
CONFINED = {
    "fairseq": ("fairseqmm*.py", "config/fairseq.py"),
    "fairseq_cli": ("fairseqmm*.py",),
    "faiss": ("retrieval/faiss_index.py",),
    "argparse": ("cli/*.py", "fairseqmm*.py"),  # fairseq's interface has parsers in it
    "typer": ("cli/*.py",),
    "subprocess": ("cli/*.py",),
    "pickle": ("utils/io.py",),
    **dict.fromkeys(("scripts", "tests", "benchmarks", "locallaunch"), ()),
}
# Named from a confined package anywhere: the plain object in which fairseq keeps a checkpoint's
# settings.
FREE = {"argparse.Namespace"}
# Arguments that let a data file run code when it is loaded.
UNSAFE_ARGUMENTS = {"weights_only=False", "allow_pickle=True"}


def imported_modules(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) for all imports of a module in `package`, also lazy, relative and
    importlib's.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *((node.module,) if node.module else ())))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            yield from (
                (node.lineno, str(arg.value))
                for arg in node.args[:1]
                if isinstance(arg, ast.Constant)
            )


def unsafe_loads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, argument) for calls that switch a loader's protection off."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.keyword)
            and f"{node.arg}={ast.unparse(node.value)}" in UNSAFE_ARGUMENTS
        ):
            yield node.value.lineno, f"{node.arg}={ast.unparse(node.value)}"


def may_import(path: Path, patterns: tuple[str, ...]) -> bool:
    """Tell whether a path relative to mmpt/ fits one of the patterns; one without a folder is about
    the file's name.
    """
    return any(
        fnmatch(path.as_posix() if "/" in pattern else path.name, pattern) for pattern in patterns
    )


def violations(relative: str, source: str) -> list[str]:
    """Return what is wrong with the imports of the module `relative` (a path inside mmpt/), one
    line for each.
    """
    path = Path(relative)
    own = path.parts[0].removesuffix(".py")
    if own not in (*LAYERS, "__init__", "__main__"):
        return [f"mmpt/{relative}: {own} is in no layer"]
    known = (
        LAYERS[: LAYERS.index(own) + 1] if own in LAYERS else ("cli",) if own == "__main__" else ()
    )
    tree = ast.parse(source, filename=relative)
    found = [
        f"mmpt/{relative}:{line}: {argument} lets a file run code"
        for line, argument in unsafe_loads(tree)
    ]
    for line, name in imported_modules(tree, ("mmpt", *path.parent.parts)):
        where = f"mmpt/{relative}:{line}: imports {name}"
        top, _, rest = name.partition(".")
        layer = rest.partition(".")[0]
        if name not in FREE and not may_import(path, CONFINED.get(top, ("*",))):
            found.append(
                f"{where}, which only {' or '.join(CONFINED[top]) or 'its own folder'} may import"
            )
        is_ours = top == "mmpt" and layer not in ("", "__version__")
        if (relative, layer) in PUBLISHED:
            continue
        if is_ours and (layer not in known or layer in UNKNOWN_TO.get(own, ())):
            found.append(f"{where}, but {own} must not know {layer}")
    return found


def test_every_import_points_to_the_same_layer_or_one_above() -> None:
    files = sorted((ROOT / "mmpt").rglob("*.py"))
    assert len(files) > 5
    wrong = [
        line
        for file in files
        for line in violations(str(file.relative_to(ROOT / "mmpt")), file.read_text())
    ]
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
        ("losses/nce.py", "from .. import tasks"),
        ("losses/nce.py", "def f():\n    import mmpt.tasks.task as task\n    return task"),
        ("losses/nce.py", "import importlib\nimportlib.import_module('mmpt.tasks')"),
        ("endtasks/coin/data.py", "from ...tasks import task"),
        ("processors/how2.py", "if TYPE_CHECKING:\n    from mmpt.datasets import MMDataset"),
        ("errors.py", "from mmpt.registry import Registry"),
        ("__init__.py", "from mmpt.models import MMFusionSeparate"),
        ("modules/masks.py", "from mmpt.config import ModelConfig"),
        ("retrieval/candidates.py", "from mmpt.models import MMFusionSeparate"),
        ("losses/nce.py", "from mmpt.helpers import thing"),
        ("helpers/thing.py", "from mmpt.utils import io"),
        ("models/mmfusion.py", "from fairseq.models import BaseFairseqModel"),
        ("models/fairseq.py", "from fairseq.models import BaseFairseqModel"),
        ("tasks/task.py", "import fairseq_cli.train"),
        ("retrieval/vectorpool.py", "import faiss"),
        ("retrieval/retriever.py", "import faiss"),
        ("processors/how2.py", "import pickle"),
        ("models/utils/io.py", "import pickle"),
        ("processors/packing.py", "import argparse"),
        ("prepare/own_videos.py", "import typer"),
        ("models/checkpoint.py", "from argparse import ArgumentParser"),
        ("tasks/task.py", "from subprocess import run"),
        ("cli/demo.py", "from scripts.make_demo_data import main"),
        ("models/checkpoint.py", "torch.load(path, weights_only=False)"),
        ("utils/io.py", "numpy.load(path, allow_pickle=True)"),
    ],
)
def test_the_checker_finds(relative: str, source: str) -> None:
    assert len(violations(relative, source)) == 1


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        (
            "losses/nce.py",
            "from torch import nn\nfrom . import similarity\nfrom mmpt.losses import sinkhorn",
        ),
        (
            "losses/nce.py",
            (
                "from mmpt.config import LossConfig\nfrom mmpt import __version__\nfrom .. import "
                "errors"
            ),
        ),
        ("registry.py", "from mmpt.errors import UserError"),
        (
            "models/fairseqmmmodel.py",
            "import argparse\nfrom fairseq.models import BaseFairseqModel",
        ),
        ("config/fairseq.py", "from fairseq.dataclass import configs"),
        ("models/checkpoint.py", "from argparse import Namespace"),
        ("retrieval/faiss_index.py", "import faiss"),
        (
            "utils/io.py",
            (
                "import pickle\nnumpy.load(path, allow_pickle=False)\ntorch.load(path, "
                "weights_only=True)"
            ),
        ),
        ("cli/launch.py", "import argparse, subprocess\nfrom mmpt.tasks import Task"),
    ],
)
def test_the_checker_lets_pass(relative: str, source: str) -> None:
    assert violations(relative, source) == []


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("mmpt", {"torch", "numpy", "transformers", "yaml", "fairseq", "faiss"}),
        ("mmpt.config", {"torch", "fairseq"}),
        ("mmpt.models, mmpt.processors, mmpt.evaluators, mmpt.losses", {"fairseq", "faiss"}),
        ("mmpt.retrieval.candidates, mmpt.tasks.task", {"faiss"}),
        ("mmpt.cli.predict", {"fairseq", "matplotlib"}),
    ],
)
def test_import_stays_light(modules: str, absent: set[str]) -> None:
    code = f"import sys, {modules}; print(*sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("modules", "most"),
    [
        ("mmpt.processors.sampling", 5),
        # The fairseq task, and the classes that how2_pretrain.yaml names.
        (
            "mmpt.tasks.fairseqmmtask, mmpt.losses.nce, mmpt.losses.sequence, mmpt.models.heads, "
            "mmpt.retrieval.faiss_index",
            90,
        ),
    ],
)
def test_an_import_loads_few_modules_and_no_benchmark(modules: str, most: int) -> None:
    code = f"import sys, {modules}; print(*(n for n in sys.modules if n.split('.')[0] == 'mmpt'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    # fairseq prints to standard output on import; the names are the last line.
    loaded = done.stdout.splitlines()[-1].split()
    assert len(loaded) <= most, loaded
    assert not [name for name in loaded if name.startswith("mmpt.endtasks.")]
