"""A profile of the training step: its kernels, and the gaps in which the GPU waits for the host."""

import gzip
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gpu_day.part import Report
from gpu_day.training_step import (
    NUM_LOSSES,
    Scale,
    Trainer,
    Variant,
    on_device,
    recipe_batches,
)

NUM_STEPS = 3
NUM_KERNELS = 25
NUM_GAPS = 10
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of events in a trace that occupy the GPU."""

Event = dict[str, Any]


def profile_step(report: Report) -> None:
    """Records the kernels and gaps of a step in bfloat16 with dropout."""
    scale = Scale.of(report)
    variant = Variant(torch.bfloat16, dropout=0.1)
    trainer = Trainer(variant, scale)
    drawn = recipe_batches(scale)[:NUM_STEPS]
    moved = [on_device(batch, scale.device, variant.dtype) for batch in drawn]
    for number in range(NUM_LOSSES):
        trainer.step(moved[number % len(moved)])
    activities = [ProfilerActivity.CPU]
    if scale.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.synchronize()
    with profile(activities=activities) as profiler:
        for batch in moved:
            trainer.step(batch)
        if scale.device.type == "cuda":
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        with (
            path.open("rb") as trace,
            gzip.open(report.out / "trace.json.gz", "wb") as packed,
        ):
            shutil.copyfileobj(trace, packed)
        events = json.loads(path.read_text())["traceEvents"]
    categories = DEVICE_WORK if scale.device.type == "cuda" else ("cpu_op",)
    for name, value in summary(events, categories, len(moved)).items():
        report.add(f"profile, {name}", value)


def summary(
    events: Sequence[Event], categories: Sequence[str], num_steps: int
) -> dict[str, Any]:
    """Returns figures of a step from the events of a trace. Times are in ms.

    Args:
        categories: the events that count as work.
        num_steps: number of steps in the trace.
    """
    work = [
        event for event in events if event.get("cat") in categories and "dur" in event
    ]
    work.sort(key=lambda event: event["ts"])
    if not work:
        raise RuntimeError(
            f"the trace has no events of the categories {', '.join(categories)}"
        )
    taken: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for event in work:
        taken[event["name"]] += event["dur"] / 1000
        counts[event["name"]] += 1
    largest = sorted(taken, key=lambda name: taken[name], reverse=True)[:NUM_KERNELS]
    kernels = []
    for name in largest:
        kernels.append([name[:120], taken[name] / num_steps, counts[name] / num_steps])
    gaps = find_gaps(work)
    span_ms = (max(event["ts"] + event["dur"] for event in work) - work[0]["ts"]) / 1000
    idle_ms = sum(gap for gap, _ in gaps)
    longest = sorted(gaps, reverse=True)[:NUM_GAPS]
    return {
        "ms of a step": span_ms / num_steps,
        "ms of a step in gaps": idle_ms / num_steps,
        "kernels of a step": len(work) / num_steps,
        "kernels, ms of a step, number": kernels,
        "longest gaps, ms, next kernel": [[gap, name[:120]] for gap, name in longest],
    }


def find_gaps(work: Sequence[Event]) -> list[tuple[float, str]]:
    """Returns the gaps between events, in ms, each with the name of the event after it.

    Args:
        work: events in the order of their start. They may overlap.
    """
    gaps = []
    busy_until = work[0]["ts"]
    for event in work:
        if event["ts"] > busy_until:
            gaps.append(((event["ts"] - busy_until) / 1000, event["name"]))
        busy_until = max(busy_until, event["ts"] + event["dur"])
    return gaps
