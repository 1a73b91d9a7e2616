"""The numbers that the papers report, and notes on when not to compare with them.

Each benchmark has a file `mmpt/endtasks/<benchmark>/published.yaml`, which maps the name of an
evaluation YAML, without `test_`, to a `Benchmark`. None of the numbers was measured again here.
Sources: VideoCLIP (arXiv 2109.14084), TempCLR (arXiv 2212.13738), Norton (arXiv 2401.16702).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter

import mmpt
from mmpt.evaluators.base import Results

METHODS = ("VideoCLIP", "TempCLR", "Norton")

Setting = Literal["zero-shot", "fine-tuned"]
Percents = tuple[float | None, float | None, float | None]
"""The number that each of `METHODS` reports, in percent. None: the paper has no such number."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The published numbers of a test set in one setting."""

    title: str
    setting: Setting
    metric: str
    """Name of the metric class that computes the same numbers here."""
    numbers: dict[str, Percents]
    """Name of a number, as the metric class has it -> its percents."""
    num_items: int | None = None
    """Size of the test set of Norton's paper, if it is known."""
    notes: tuple[str, ...] = ()
    """Facts to know before comparing, in sentences."""

    @property
    def papers(self) -> dict[str, Results]:
        """The numbers of every method as fractions. A method without numbers has an empty dict."""
        found: dict[str, Results] = {}
        for column, method in enumerate(METHODS):
            shares = {}
            for name, percents in self.numbers.items():
                percent = percents[column]
                if percent is not None:
                    shares[name] = percent / 100
            found[method] = {self.metric: shares}
        return found


@cache
def published_benchmarks() -> Mapping[str, Benchmark]:
    """Returns the published numbers of all benchmarks, benchmark by benchmark.

    The key is the name of an evaluation YAML, without `test_`.
    """
    benchmarks = TypeAdapter(dict[str, Benchmark])
    endtasks = Path(mmpt.__file__).parent / "endtasks"
    published: dict[str, Benchmark] = {}
    for path in sorted(endtasks.glob("*/published.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        published |= benchmarks.validate_python(content)
    return published


def benchmark_key(task: str) -> str:
    """Returns the key for `published_benchmarks` from the stem of a YAML. It may not have this key.

    For example, `test_vtt_zs` becomes `vtt_zs`. `test_vtt_ft` and VideoCLIP's YAML of the same
    benchmark, `test_vtt_videoclip`, both become `vtt_ft`.
    """
    name = task.removeprefix("test_").removesuffix("_videoclip")
    fine_tuned = f"{name}_ft"
    return fine_tuned if fine_tuned in published_benchmarks() else name


def setting_of(task: str) -> str:
    """Returns `zero-shot` or `fine-tuned` from the name of a YAML, or "" if it says neither."""
    *_, ending = benchmark_key(task).split("_")
    if ending == "zs":
        return "zero-shot"
    if ending == "ft":
        return "fine-tuned"
    return ""


def comparability_notes(
    benchmark: Benchmark | None, rows: dict[str, dict[str, Any]]
) -> list[str]:
    """Returns the reasons not to compare runs with each other or with the papers, in sentences.

    Args:
        benchmark: the published numbers, if there are any.
        rows: name of a run -> its row of a results file. All rows are of one benchmark.
    """
    notes = []
    by_data: dict[str, list[str]] = {}
    expected = benchmark.num_items if benchmark else None
    for name, row in rows.items():
        scored = row.get("num_items")
        missing = row.get("num_missing", 0)
        if "data_fingerprint" in row:
            same_data = by_data.setdefault(row["data_fingerprint"], [])
            same_data.append(name)
        else:
            notes.append(
                f"{name} did not record the data it was scored on; score it again."
            )
        if missing:
            notes.append(
                f"{name} was scored on {scored:,} of {scored + missing:,} test items; the others "
                "have no features."
            )
        elif expected and scored and scored != expected:
            notes.append(
                f"{name} was scored on {scored:,} items, Norton's are on {expected:,}."
            )
    if len(by_data) > 1:
        groups = []
        for data, names in by_data.items():
            listed = ", ".join(names)
            groups.append(f"{listed} on {data[:12]}")
        listed = "; ".join(groups)
        notes.append(f"the runs were scored on different data ({listed}).")
    return [f"not comparable: {note}" for note in notes]
