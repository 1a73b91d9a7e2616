"""Time and memory of Norton's data loading and epoch refresh at the size of HowTo100M.

    python benchmarks/full_size.py                     # 20,000 videos, under a minute
    python benchmarks/full_size.py --videos 1200000    # HowTo100M: 11 GB of disk during the run

It runs the code and the settings of projects/retri/norton/how2_pretrain.yaml: the task, the data
set, the iterator of an epoch with its worker processes, the pool of vectors, the index, the choice
of candidates, and the file of the plan. Only the data and the video vectors are generated
(full_size_data.py).

Each part runs in its own process. process_memory.py explains the kinds of memory. The wait for data
is measured with steps that take 0.1 s and no CPU time, like a step on a GPU.
"""

import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from full_size_data import build, claim_folder, overrides, vector_blocks
from full_size_stream import READ_AHEAD, stream_figures
from mmpt.batch import Split
from mmpt.config import RunConfig, load_config
from mmpt.datasets import MMDataset
from mmpt.datasets.fairseqmmdataset import FairseqMMDataset, PlannedBatchIterator
from mmpt.errors import UserError
from mmpt.processors import ShardedHow2VideoRetriMetaProcessor
from mmpt.retrieval import Plan, VectorRetriever, VideoVectorPool, refresh_plan
from mmpt.tasks.task import Task
from mmpt.utils.distributed import World
from mmpt.utils.stopwatch import Stopwatch
from process_memory import MB, Memory, peak_memory, reset_peak, run_in_new_process
from results import ROOT, Figure, Options, record, run_script, timed

YAML = ROOT / "projects/retri/norton/how2_pretrain.yaml"
STEP_S = 0.1
NUM_STEPS = 40
MIN_ITEMS = READ_AHEAD + 8
"""Smallest number of batches on which the rate is measured. With fewer, the workers may end before
their memory is sampled a second time.
"""
HIDDEN_SIZE = 768
CPU = torch.device("cpu")
CHUNK = 1024
"""Number of videos that are added to the pool at a time."""


def main(argv: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.number("--videos", 20_000, "number of training videos")
    parser.number(
        "--items", None, "batches of 64 videos to read (default: the whole epoch)"
    )
    parser.number(
        "--workers", None, "loader processes (default: the number in the YAML)"
    )
    parser.add_argument(
        "--part", choices=("loader", "refresh"), help="run only this part"
    )
    parser.add_argument(
        "--folder", type=Path, help="folder of the data (default: a temporary one)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the data for the next run"
    )
    args = parser.parse_args(argv)
    folder = (
        args.folder or Path(tempfile.gettempdir()) / f"mmpt_full_size_{args.videos}"
    )
    claim_folder(folder, args.videos)
    try:
        figures = []
        if args.part != "refresh":
            check_length(args.videos // 64, args.items)
            figures += run_in_new_process(
                loader_figures, folder, args.videos, args.items, args.workers
            )
        if args.part != "loader":
            figures += run_in_new_process(refresh_figures, folder, args.videos)
    finally:
        if not args.keep:
            shutil.rmtree(folder)
    record(figures, args.out)


def check_length(num_batches: int, num_items: int | None) -> None:
    """Raises UserError if too few batches are left to measure the rate of the loader."""
    num_read = min(num_items or num_batches, num_batches)
    num_steps = min(NUM_STEPS, num_batches // 8)
    left = num_read - 1 - num_steps  # after the first batch and those with steps
    if left < MIN_ITEMS:
        raise UserError(
            f"--videos and --items must leave at least {MIN_ITEMS} batches of 64 videos to "
            f"measure, but leave {max(left, 0)}; use at least 2,944 videos, and at least "
            f"{MIN_ITEMS + 1 + NUM_STEPS} items if there are more videos."
        )


def loader_figures(
    folder: Path, num_videos: int, num_items: int | None, num_workers: int | None
) -> list[Figure]:
    """Measures the start of the data sets, a plan, and an epoch of batches."""
    print(
        f"writing data of {num_videos:,} videos to {folder}",
        file=sys.stderr,
        flush=True,
    )
    build(folder, num_videos)
    config = load_config(YAML, overrides(folder))
    torch.zeros(1)  # loads libraries
    base = Memory.of(os.getpid()).own
    started_s, (train, valid) = timed(build_datasets, config)
    sizes = f"{len(_planned(train).videos):,} + {len(_planned(valid).videos):,} videos"
    own_mb = (Memory.of(os.getpid()).own - base) / MB
    peak_mb = peak_memory() / MB
    figures = [
        Figure("start, both data sets", "s", [started_s], note=sizes),
        Figure("start, peak memory with mapped pages", "MB", [peak_mb]),
        Figure("start, own memory", "MB", [own_mb]),
    ]
    figures += plan_figures(train, folder)
    figures += epoch_figures(train, num_workers or config.num_workers, num_items)
    return figures


def build_datasets(config: RunConfig) -> list[MMDataset]:
    """Returns the data sets of both splits."""
    task = Task.from_config(config)
    train = task.build_dataset(Split.TRAIN)
    valid = task.build_dataset(Split.VALID)
    assert train is not None
    assert valid is not None
    return [train, valid]


def plan_figures(train: MMDataset, folder: Path) -> list[Figure]:
    """Measures a plan of random batches, which is as large as a plan of retrieved batches."""
    meta = _planned(train)
    watch = Stopwatch()
    ids = meta.videos.name_list()
    with watch.timed("random grouping"):
        meta.random_candidates(random.Random(0))
    batches = tuple(tuple(batch.tolist()) for batch in meta.batches)
    plan = Plan(1, "fingerprint", "list", len(ids), batches)
    with watch.timed("saving"):
        path = plan.save(folder / "retri", ids)
    with watch.timed("loading"):
        loaded = Plan.load(folder / "retri", 1, "fingerprint", "list")
    with watch.timed("taking up"):
        meta.set_candidates(loaded.batches)
    megabytes = path.stat().st_size / MB
    figures = [
        Figure("plan, file", "MB", [megabytes], note=f"{len(plan.batches):,} batches")
    ]
    return figures + part_figures("plan", watch)


def part_figures(name: str, watch: Stopwatch, **notes: str) -> list[Figure]:
    """Returns a figure for every part that was timed."""
    figures = []
    for part, seconds in watch.seconds.items():
        figures.append(
            Figure(f"{name}, {part}", "s", [seconds], note=notes.get(part, ""))
        )
    return figures


def _planned(dataset: MMDataset) -> ShardedHow2VideoRetriMetaProcessor:
    """Returns the meta processor of a data set whose batches follow a plan."""
    assert isinstance(dataset.meta, ShardedHow2VideoRetriMetaProcessor)
    return dataset.meta


def epoch_figures(
    train: MMDataset, num_workers: int, num_items: int | None
) -> list[Figure]:
    """Measures an epoch of batches: first with a step of `STEP_S` for each, then without steps."""
    # torch warns about more workers than cores, and about pinned memory without a GPU.
    warnings.filterwarnings("ignore", module="torch.utils.data")
    iterator = PlannedBatchIterator(
        FairseqMMDataset(train, training=True),
        plan=lambda epoch, wanted: "as it is",
        epoch=1,
        batch_size=1,
        num_workers=num_workers,
        buffer_size=10,
    )
    begin = time.perf_counter()
    batches = iterator.next_epoch_itr(shuffle=True)
    next(batches)
    first_s = time.perf_counter() - begin
    iterator.take_waited_s()
    waited_s = 0.0
    num_steps = min(NUM_STEPS, len(batches) // 8)
    for _ in range(num_steps):
        time.sleep(STEP_S)
        next(batches)
        waited_s += iterator.take_waited_s()
    whole_s = waited_s + STEP_S * num_steps
    waited_percent = 100 * waited_s / whole_s
    what = f"loader, wait for data at {STEP_S} s a step"
    figures = [
        Figure(
            f"loader, start of {num_workers} workers to the first batch", "s", [first_s]
        ),
        Figure(what, "%", [waited_percent], note=f"{num_steps} steps"),
    ]
    num_wanted = min(num_items or len(batches), len(batches))
    figures += stream_figures(batches, num_workers, num_wanted - batches.n)
    return figures


def refresh_figures(
    folder: Path, num_videos: int, device: torch.device = CPU
) -> list[Figure]:
    """Measures the parts of a refresh: the pool of vectors, the index, the search and the plan.

    Args:
        device: device of the search.
    """
    settings = load_config(YAML)
    dataset = settings.dataset
    retrieval = settings.retrieval
    watch = Stopwatch()
    assert dataset.num_video_per_batch
    assert retrieval.num_cands
    reset_peak()
    pool = VideoVectorPool(
        np.arange(num_videos), HIDDEN_SIZE, folder / "retri", key="full size"
    )
    for _, vectors in vector_blocks(num_videos, HIDDEN_SIZE, CHUNK):
        with watch.timed("pool"):
            pool.add(torch.from_numpy(vectors))
    with watch.timed("pool"):
        vectors_ND = pool.gather(World())
    assert vectors_ND is not None
    size = f"{num_videos:,} x {HIDDEN_SIZE}"
    pool_s = watch.seconds.pop("pool")
    pool_mb = peak_memory() / MB
    figures = [
        Figure("refresh, pool of vectors", "s", [pool_s], note=size),
        Figure("refresh, pool of vectors, peak memory", "MB", [pool_mb]),
    ]
    reset_peak()
    retriever = VectorRetriever(
        HIDDEN_SIZE,
        retrieval.centroids,
        nprobe=retrieval.nprobe,
        recall=retrieval.recall,
        device=device,
    )
    plan = refresh_plan(
        vectors_ND,
        epoch=1,
        videos_per_batch=dataset.num_video_per_batch,
        num_cands=retrieval.num_cands,
        retriever=retriever,
        fingerprint="fingerprint",
        list_fingerprint="list",
        watch=watch,
    )
    pool.discard()
    what = f"{len(plan.batches):,} centres, {retriever.last_nprobe} of {retriever.num_lists} lists"
    if retriever.last_recall is not None:
        what += f", recall@{retrieval.num_cands} {retriever.last_recall:.3f}"
    figures += part_figures("refresh", watch, search=what)
    plan_mb = peak_memory() / MB
    figures.append(Figure("refresh, index to plan, peak memory", "MB", [plan_mb]))
    return figures


if __name__ == "__main__":
    run_script(main)
