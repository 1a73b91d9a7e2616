"""Measures the rate and the memory of the loader in full_size.py while it reads an epoch."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from process_memory import MB, Memory, cpu_s
from results import Figure

NUM_SAMPLES = 40
"""Number of times that memory is measured in an epoch."""
CPU_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
"""Resolution of CPU times. Workers that have read ahead may use less time between two samples."""
READ_AHEAD = 32
"""Batches that may be ready before they are needed."""


@dataclass(frozen=True)
class Sample:
    """The state of the loader after a number of batches."""

    item: int
    """Number of batches that were read before."""
    at_s: float
    """Time of the sample."""
    cpu_s: float
    """CPU time of all workers so far."""
    memory: list[Memory]
    """The memory of the parent, then of every worker."""


def stream_figures(
    batches: Iterator[Any], num_workers: int, num_items: int
) -> list[Figure]:
    """Reads `num_items` batches without steps, and samples rate and memory at regular intervals."""
    workers = [worker.pid for worker in multiprocessing.active_children() if worker.pid]
    num_sampled = num_items - READ_AHEAD  # after these, workers may have ended
    step = max(1, num_sampled // NUM_SAMPLES)
    samples = []
    for item in range(num_items):
        next(batches)
        if item % step == 0 and item < num_sampled:
            worked_s = sum(map(cpu_s, workers))
            memory = [Memory.of(pid) for pid in (os.getpid(), *workers)]
            samples.append(Sample(item, time.perf_counter(), worked_s, memory))
    first = samples[0]
    last = samples[-1]
    num_read = last.item - first.item
    num_videos = 64 * num_read
    rate = num_videos / (last.at_s - first.at_s)
    worked_s = max(last.cpu_s - first.cpu_s, CPU_TICK_S)
    rate_a_core = num_videos / worked_s
    note = f"{num_read:,} batches on {os.cpu_count()} cores"
    return [
        Figure(f"loader, {num_workers} workers", "videos/s", [rate], note=note),
        Figure("loader, a core of workers", "videos/s", [rate_a_core]),
        *memory_figures(samples),
    ]


def memory_figures(samples: list[Sample]) -> list[Figure]:
    """Returns the memory at the end of an epoch, and its growth after the first quarter."""
    figures = []
    items = np.array([sample.item for sample in samples])
    late = items >= items[-1] / 4
    # One row per sample: the own memory of the parent, then of the workers, in MB.
    own_rows = []
    for sample in samples:
        own_rows.append([memory.own for memory in sample.memory])
    own_SP = np.array(own_rows) / MB
    workers_S = own_SP[:, 1:].mean(axis=1)
    for name, own in (("parent", own_SP[:, 0]), ("a worker", workers_S)):
        slope = 0.0
        if late.sum() > 1:
            slope, _ = np.polyfit(items[late], own[late], 1)
        note = f"{1000 * slope:+.2f} MB per 1,000 batches"
        figures.append(
            Figure(f"loader, own memory of {name}", "MB", [own[-1]], note=note)
        )
    whole_peak = mapped_peak = 0
    for sample in samples:
        whole = sum(memory.own + memory.batches for memory in sample.memory)
        whole_peak = max(whole_peak, whole)
        mapped = sum(memory.mapped for memory in sample.memory)
        mapped_peak = max(mapped_peak, mapped)
    what = "loader, all processes, own memory and batches, peak"
    figures.append(Figure(what, "MB", [whole_peak / MB]))
    what = "loader, all processes, mapped pages, peak"
    figures.append(Figure(what, "MB", [mapped_peak / MB]))
    return figures
