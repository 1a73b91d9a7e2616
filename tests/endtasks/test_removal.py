"""A benchmark can be removed with its folder: all YAMLs of other benchmarks can still be loaded.

In one of the copies, the demo's YAML is also scored.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from mmpt.config.yaml_files import read_yaml
from tests.support.paths import ROOT
from tests.support.small_evaluation import write_evaluation

FOLDERS = sorted(
    path.parent for path in (ROOT / "mmpt" / "endtasks").glob("*/__init__.pyi")
)
PROJECTS = ROOT / "projects" / "retri"
YAMLS = sorted(
    str(path.relative_to(ROOT)) for path in (PROJECTS / "norton").glob("*.yaml")
)
"""The YAMLs of VideoCLIP name no other classes, so they need not be loaded, too."""
OPEN_ALL = """
import json, os, sys
import mmpt.cli.main, mmpt.reporting.report

def open_all():
    import mmpt.cli.main, mmpt.reporting.report
    from mmpt.config import load_config
    from mmpt.errors import ConfigError
    from mmpt.evaluators import METRICS, PREDICTORS
    from mmpt.evaluators.published import published_benchmarks
    from mmpt.processors import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
    from mmpt.tasks import Task

    assert mmpt.__file__.startswith(os.getcwd())
    registries = ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS, METRICS, PREDICTORS
    for registry in registries:
        list(registry)
    problems = {}
    for path in sys.argv[2:]:
        try:
            Task.from_config(load_config(path, import_fairseq=False))
            problems[path] = []
        except ConfigError as err:
            problems[path] = err.problems
    metrics = {benchmark.metric for benchmark in published_benchmarks().values()}
    return problems, sorted(metrics - set(METRICS))

# Each copy is imported in a process of its own. The libraries are imported once, in this one.
for name in [name for name in sys.modules if name.partition(".")[0] == "mmpt"]:
    del sys.modules[name]
for folder in sorted(os.listdir(sys.argv[1])):
    if os.fork() == 0:
        os.chdir(os.path.join(sys.argv[1], folder))
        sys.path.insert(0, os.getcwd())
        with open("opened.json", "w") as file:
            json.dump(open_all(), file)
        if os.path.exists("scores.yaml"):
            mmpt.cli.main.main(["predict", "scores.yaml", "--device", "cpu"])
        os._exit(0)
    os.wait()
"""
"""Opens every YAML with each copy of the project. Writes to a file in the copy the mistakes in each
YAML, and the metrics with published numbers that no longer exist. Scores the copy's `scores.yaml`
if there is one.
"""
SCORED = "youcook"
"""The benchmark without which the demo's YAML is scored."""


def public_names(folder: Path) -> set[str]:
    """Returns the `__all__` of a folder's stub."""
    (last,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((folder / "__init__.pyi").read_text()).body
        if isinstance(node, ast.Assign)
    )
    return set(last)


@cache
def words_of(path: str) -> frozenset[str]:
    """Returns all words in the keys and values of a YAML."""
    return frozenset(re.findall(r"\w+", str(read_yaml(ROOT / path))))


def test_the_yamls_of_videoclip_name_no_other_classes() -> None:
    classes = frozenset().union(*map(public_names, FOLDERS))
    loaded = frozenset().union(*map(words_of, YAMLS))
    for path in (PROJECTS / "videoclip").glob("*.yaml"):
        assert classes & words_of(str(path.relative_to(ROOT))) <= loaded, path


@pytest.fixture(scope="module")
def copies(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without one benchmark, in a folder for each, after all YAMLs were opened."""
    root = tmp_path_factory.mktemp("copies")
    for folder in FOLDERS:
        copy = root / folder.name
        shutil.copytree(ROOT / "mmpt", copy / "mmpt")
        shutil.copytree(ROOT / "projects", copy / "projects")
        shutil.rmtree(copy / "mmpt" / "endtasks" / folder.name)
    write_evaluation(root / SCORED, corpus)
    subprocess.run(
        [sys.executable, "-c", OPEN_ALL, str(root), *YAMLS],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    return root


@pytest.mark.spawn
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_benchmark_is_removed_by_removing_its_folder(
    folder: Path, copies: Path
) -> None:
    opened = (copies / folder.name / "opened.json").read_text()
    problems_by_path, unknown_metrics = json.loads(opened)
    assert unknown_metrics == []
    for path, problems in problems_by_path.items():
        removed = public_names(folder).intersection(words_of(path))
        # Each removed class that the YAML names is one mistake, and there are no others.
        for name in removed:
            assert [text for text in problems if f"is called `{name}`." in text], (
                path,
                problems,
            )
        assert len(problems) == len(removed), (path, problems)


@pytest.mark.spawn
def test_the_demo_is_scored_without_another_benchmark(copies: Path) -> None:
    (row,) = json.loads((copies / SCORED / "scores/results.json").read_text())
    assert set(row["metrics"]) == {"RetrievalMetric", "FullVideoRetrievalMetric"}
