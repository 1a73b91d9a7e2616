"""The refresh: exact search and plan at the size of HowTo100M, and the embedding pass."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from full_size import YAML, refresh_figures
from full_size_data import build, overrides, vector_blocks
from gpu_day.part import Report
from gpu_day.targets import NUM_UPDATES, NUM_VIDEOS
from mmpt.batch import Split
from mmpt.config import load_config
from mmpt.retrieval.all_pairs import search_all
from mmpt.tasks import Task, VideoRetriTask
from mmpt.utils.distributed import World
from results import timed
from step import towers

MAX_WORKERS = 12
WIDTH = 768


def device_of(report: Report) -> torch.device:
    """Returns the device of a run."""
    return torch.device("cpu" if report.rehearse else "cuda")


def measure_search(report: Report) -> None:
    """Records the parts of a refresh after the embedding pass, and the search on the GPU alone."""
    device = device_of(report)
    num_videos, num_queries = NUM_VIDEOS, NUM_UPDATES
    if report.rehearse:
        num_videos, num_queries = 3000, 46
    with tempfile.TemporaryDirectory() as folder:
        with report.attempt("search on the device"):
            measure_products(report, num_videos, num_queries, device)
        for figure in refresh_figures(Path(folder), num_videos, device):
            report.add(f"{figure.what}: {figure.unit}", figure.ours[0])


def measure_products(
    report: Report, num_videos: int, num_queries: int, device: torch.device
) -> None:
    """Records the time of the search on the device: of a first call, and of a second one."""
    vectors = np.empty((num_videos, WIDTH), np.float16)
    block_rows = 1 << 16
    # One block of clustered vectors, repeated with its columns shifted.
    (_, block), *_ = vector_blocks(min(block_rows, num_videos), WIDTH, block_rows)
    for number, begin in enumerate(range(0, num_videos, block_rows)):
        rows = vectors[begin : begin + block_rows]
        rows[:] = np.roll(block, number, axis=1)[: len(rows)]
    queries = vectors[:: num_videos // num_queries][:num_queries].astype(np.float32)
    for name in ("first", "second"):
        seconds, _ = timed(
            lambda: search_all(queries, vectors, 200, is_l2=True, device=device)
        )
        report.add(f"search on the device, {name}: s", seconds)


def measure_embedding(report: Report) -> None:
    """Records the clips per second of the task's embedding pass, in float16."""
    device = device_of(report)
    num_videos = 256 if report.rehearse else 20_000
    num_workers = 0
    # Workers hand over batches in shared memory, about 50 MB each.
    if not report.rehearse and shutil.disk_usage("/dev/shm").free > 1e9:
        num_workers = min(MAX_WORKERS, os.cpu_count() or 1)
    dtype = torch.float32 if report.rehearse else torch.float16
    model = towers(
        "demo" if report.rehearse else "base", packed=True, device=device, dtype=dtype
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, num_videos)
        changes = [
            f"fairseq.checkpoint.save_dir={folder}/run",
            f"fairseq.dataset.num_workers={num_workers}",
            "fairseq.checkpoint.restore_file=null",
        ]
        task = Task.from_config(load_config(YAML, [*overrides(folder), *changes]))
        assert isinstance(task, VideoRetriTask)
        task.build_dataset(Split.TRAIN)
        report.add("embed: loader processes", num_workers)
        for epoch in (1, 2):
            seconds, vectors = timed(task.embed_videos, model, epoch, World())
            assert vectors is not None
            report.add("embed: vectors are finite", bool(np.isfinite(vectors).all()))
            # The first pass also fills caches. The second one replaces its rate.
            report.add("embed: clips/s", num_videos * 16 / seconds)
        report.add("embed: videos", num_videos)
        report.add(
            "embed: hours for 1.2 million videos",
            seconds / num_videos * NUM_VIDEOS / 3600,
        )
