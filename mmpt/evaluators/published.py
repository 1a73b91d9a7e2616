"""What the papers report on each benchmark, in percent, by the name of the evaluation YAML; none was run again here.

Numbers are those of VideoCLIP (arXiv 2109.14084), TempCLR (arXiv 2212.13738) and Norton (arXiv 2401.16702), under the
metric class and number that this project computes for the same thing. None stands for what a paper does not report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

METHODS = ("VideoCLIP", "TempCLR", "Norton")

Setting = Literal["zero-shot", "fine-tuned"]
Percents = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The published numbers of a test set in one setting."""

    title: str
    setting: Setting
    metric: str
    """Name of the metric class."""
    numbers: dict[str, Percents]
    """Name of the number -> percent of each of `METHODS`."""
    num_items: int | None = None
    """Size of the test set that Norton reports on, where known."""
    notes: tuple[str, ...] = ()
    """What to know before comparing."""

    def results_of(self, method: str) -> dict[str, dict[str, float]]:
        """Return a method's numbers as fractions, in the shape of `Results`."""
        place = METHODS.index(method)
        percents = {name: values[place] for name, values in self.numbers.items()}
        return {
            self.metric: {
                name: percent / 100 for name, percent in percents.items() if percent is not None
            }
        }

    @property
    def papers(self) -> dict[str, dict[str, dict[str, float]]]:
        """The numbers of every method that reports any, as `results_of` returns them."""
        found = {method: self.results_of(method) for method in METHODS}
        return {method: results for method, results in found.items() if any(results.values())}


def _recalls(prefix: str, videoclip: str, tempclr: str, norton: str) -> dict[str, Percents]:
    """Return R1, R5 and R10 from texts such as `74.5 94.5 97.9`, empty where there is none."""
    columns: list[list[float | None]] = [
        [float(part) for part in text.split()] or [None] * 3
        for text in (videoclip, tempclr, norton)
    ]
    return {f"{prefix}R{k}": (a, b, c) for k, a, b, c in zip((1, 5, 10), *columns, strict=True)}


_FULL_VIDEO = "YouCook2, whole videos by their paragraphs"

PUBLISHED: dict[str, Benchmark] = {
    "youcook_fullvideo_zs": Benchmark(
        title=f"{_FULL_VIDEO}, background removed",
        setting="zero-shot",
        metric="FullVideoRetrievalMetric",
        numbers={
            **_recalls("", "74.5 94.5 97.9", "74.5 94.6 97.0", "75.5 95.0 97.7"),
            **_recalls("DTW-", "56.0 89.9 96.3", "83.5 97.2 99.3", "88.7 98.8 99.5"),
            **_recalls("OTAM-", "52.8 89.2 95.0", "84.9 97.9 99.3", "88.9 98.4 99.5"),
        },
        num_items=3350,
        notes=(
            "OTAM of VideoCLIP: Norton's author got 78.7/97.5/98.6 from the same checkpoint.",
            "DTW and OTAM include the padding defects of the released code, as the published form here does.",
            "TempCLR used one minus the score as the distance, the released code minus the score.",
        ),
    ),
    "youcook_fullvideo_bg_zs": Benchmark(
        title=f"{_FULL_VIDEO}, background kept",
        setting="zero-shot",
        metric="FullVideoBGRetrievalMetric",
        numbers={
            **_recalls("", "73.6 94.7 98.4", "71.7 94.5 97.9", "74.8 94.7 98.4"),
            **_recalls("DTW-", "55.7 93.1 98.9", "70.4 93.8 97.9", "76.1 95.0 97.7"),
            **_recalls("OTAM-", "56.6 92.8 98.9", "72.2 94.5 97.7", "73.6 94.7 97.7"),
        },
        notes=(
            "DTW and OTAM include the padding defects of the released code, as the published form here does.",
        ),
    ),
    "youcook_zs": Benchmark(
        title="YouCook2, clips by their captions",
        setting="zero-shot",
        metric="RetrievalMetric",
        numbers=_recalls("", "22.7 50.4 63.1", "23.3 51.0 64.5", "24.2 51.9 64.1"),
        num_items=3350,
        notes=(
            "VideoCLIP: Norton's author got 22.4/50.3/62.6 from the same checkpoint.",
            "Norton's test set has 3,350 clips, that of VideoCLIP's paper 3,305.",
        ),
    ),
    "youcook_ft": Benchmark(
        title="YouCook2, clips by their captions",
        setting="fine-tuned",
        metric="RetrievalMetric",
        numbers=_recalls("", "32.2 62.6 75.0", "", ""),
        notes=("The test set of VideoCLIP's paper has 3,305 clips.",),
    ),
    "vtt_zs": Benchmark(
        title="MSR-VTT, videos by their captions (1k-A)",
        setting="zero-shot",
        metric="RetrievalMetric",
        numbers=_recalls("", "10.4 22.2 30.0", "10.1 22.2 29.4", "10.7 24.1 31.6"),
        num_items=1000,
    ),
    "vtt_ft": Benchmark(
        title="MSR-VTT, videos by their captions (1k-A)",
        setting="fine-tuned",
        metric="RetrievalMetric",
        numbers=_recalls("", "30.9 55.4 66.8", "30.6 55.1 65.5", "31.2 55.7 66.8"),
        num_items=1000,
        notes=(
            "The released fine-tuning chooses its checkpoint by the loss on this very test set.",
        ),
    ),
    "vttqa_zs": Benchmark(
        title="MSR-VTT, multiple choice",
        setting="zero-shot",
        metric="QAMetric",
        numbers={"acc": (73.9, 74.4, 77.1)},
    ),
    "vttqa_ft": Benchmark(
        title="MSR-VTT, multiple choice",
        setting="fine-tuned",
        metric="QAMetric",
        numbers={"acc": (92.1, 92.2, 92.7)},
    ),
    "coin_zs": Benchmark(
        title="COIN, step segmentation",
        setting="zero-shot",
        metric="COINActionSegmentationMetric",
        numbers={"frame_acc": (58.9, None, None)},
        notes=(
            "VideoCLIP's 58.9 is the share of background: users report that every second comes out as background.",
        ),
    ),
    "coin_ft": Benchmark(
        title="COIN, step segmentation",
        setting="fine-tuned",
        metric="COINActionSegmentationMetric",
        numbers={"frame_acc": (68.7, 68.7, 69.8)},
    ),
    "crosstask_zs": Benchmark(
        title="CrossTask, step localisation",
        setting="zero-shot",
        metric="CrossTaskMetric",
        numbers={"recall": (33.9, None, None)},
    ),
    "crosstask_ft": Benchmark(
        title="CrossTask, step localisation",
        setting="fine-tuned",
        metric="CrossTaskMetric",
        numbers={"recall": (47.3, None, None)},
    ),
    "didemo_zs": Benchmark(
        title="DiDeMo, moment retrieval",
        setting="zero-shot",
        metric="DiDeMoMetric",
        numbers={"rank1": (16.6, None, None), "rank5": (46.9, None, None)},
    ),
    "how2align_zs": Benchmark(
        title="HTM-Align, which sentences are shown, and when",
        setting="zero-shot",
        metric="How2AlignMetric",
        numbers={"Recall": (44.4, 44.1, 46.9)},
    ),
}


def benchmark_key(task: str) -> str:
    """Return the key in `PUBLISHED` that the stem of a YAML stands for, whether it is there or not.

    `test_vtt_zs` is `vtt_zs`; `test_vtt_ft`, and VideoCLIP's name `test_vtt_videoclip` for the same, are `vtt_ft`.
    """
    name = task.removeprefix("test_").removesuffix("_videoclip")
    return f"{name}_ft" if f"{name}_ft" in PUBLISHED else name


def setting_of(task: str) -> str:
    """Return `zero-shot`, `fine-tuned`, or nothing where the name of the YAML does not say it."""
    key = benchmark_key(task)
    return next(
        (name for end, name in (("_zs", "zero-shot"), ("_ft", "fine-tuned")) if key.endswith(end)),
        "",
    )


def comparability_notes(benchmark: Benchmark | None, rows: dict[str, dict]) -> list[str]:
    """Return why runs should not be compared with each other or with the papers, one sentence each.

    Args:
        benchmark: what is published, if anything.
        rows: name -> row of a results file, all of one benchmark.
    """
    notes = []
    by_data: dict[str | None, list[str]] = {}
    for name, row in rows.items():
        by_data.setdefault(row.get("data_fingerprint"), []).append(name)
    unknown = by_data.pop(None, [])
    if unknown:
        notes.append(
            f"not comparable: {', '.join(unknown)} did not record the data it was scored on; score it again."
        )
    if len(by_data) > 1:
        groups = "; ".join(
            f"{', '.join(names)} on {str(data)[:12]}" for data, names in by_data.items()
        )
        notes.append(f"not comparable: the runs were scored on different data ({groups}).")
    for name, row in rows.items():
        scored, missing = row.get("num_items"), row.get("num_missing", 0)
        if missing:
            notes.append(
                f"not comparable: {name} was scored on {scored:,} of {scored + missing:,} test items; the others have "
                "no features."
            )
        elif benchmark and benchmark.num_items and scored not in (None, benchmark.num_items):
            notes.append(
                f"not comparable with the published numbers: {name} was scored on {scored:,} items, Norton's are on "
                f"{benchmark.num_items:,}."
            )
    return notes
