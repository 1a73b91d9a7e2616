"""The numbers that the papers report, from `published.yaml`, and when not to compare with them."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter

from mmpt.evaluators.base import Results

METHODS = ("VideoCLIP", "TempCLR", "Norton")

Setting = Literal["zero-shot", "fine-tuned"]
Percents = tuple[float | None, float | None, float | None]
"""Of each of `METHODS`; None where a paper reports nothing."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The published numbers of a test set in one setting."""

    title: str
    setting: Setting
    metric: str
    """Name of the metric class."""
    numbers: dict[str, Percents]
    """Name of the number -> its percents."""
    num_items: int | None = None
    """Size of the test set that Norton reports on, where known."""
    notes: tuple[str, ...] = ()
    """What to know before comparing."""

    @property
    def papers(self) -> dict[str, Results]:
        """The numbers of every method as fractions; none where it reports none."""
        found: dict[str, Results] = {}
        for column, method in enumerate(METHODS):
            percents = {name: values[column] for name, values in self.numbers.items()}
            shares = {name: value / 100 for name, value in percents.items() if value}
            found[method] = {self.metric: shares}
        return found


PUBLISHED: dict[str, Benchmark] = TypeAdapter(dict[str, Benchmark]).validate_python(
    yaml.safe_load((files(__package__) / "published.yaml").read_text(encoding="utf-8"))
)


def benchmark_key(task: str) -> str:
    """Returns the key in `PUBLISHED` for the stem of a YAML. The key need not be there.

    `test_vtt_zs` is `vtt_zs`; `test_vtt_ft`, and VideoCLIP's name `test_vtt_videoclip` for the
    same, are `vtt_ft`.
    """
    name = task.removeprefix("test_").removesuffix("_videoclip")
    return f"{name}_ft" if f"{name}_ft" in PUBLISHED else name


def setting_of(task: str) -> str:
    """Returns `zero-shot`, `fine-tuned`, or nothing where the name of the YAML does not say it."""
    return {"zs": "zero-shot", "ft": "fine-tuned"}.get(benchmark_key(task).rpartition("_")[2], "")


def comparability_notes(benchmark: Benchmark | None, rows: dict[str, dict[str, Any]]) -> list[str]:
    """Returns why runs should not be compared with each other or with the papers, in sentences.

    Args:
        benchmark: what is published, if anything.
        rows: name -> row of a results file, all of one benchmark.
    """
    notes = []
    by_data: dict[str, list[str]] = {}
    for name, row in rows.items():
        scored, missing = row.get("num_items"), row.get("num_missing", 0)
        if "data_fingerprint" in row:
            by_data.setdefault(row["data_fingerprint"], []).append(name)
        else:
            notes.append(f"{name} did not record the data it was scored on; score it again.")
        if missing:
            notes.append(
                f"{name} was scored on {scored:,} of {scored + missing:,} test items; the others "
                "have no features."
            )
        elif benchmark and benchmark.num_items and scored not in (None, benchmark.num_items):
            notes.append(
                f"{name} was scored on {scored:,} items, Norton's are on {benchmark.num_items:,}."
            )
    if len(by_data) > 1:
        groups = [f"{', '.join(names)} on {data[:12]}" for data, names in by_data.items()]
        notes.append(f"the runs were scored on different data ({'; '.join(groups)}).")
    return [f"not comparable: {note}" for note in notes]
