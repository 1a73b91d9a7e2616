"""Runs the loaders of training for a million items and a hundred refreshes, and looks for leaks.

    make soak
    python -m tests.support.soak FOLDER [--items 1000000] [--refreshes 100] [--write]

`make soak` sets ONEDNN_PRIMITIVE_CACHE_CAPACITY and LRU_CACHE_CAPACITY. On a CPU, torch keeps up to
1,024 compiled kernels and their descriptions, one for each shape of the arguments. The clips of
each refresh have new shapes, so without a limit these caches would grow through all of the
refreshes, as a leak does.

An item is one clip. Every batch of 64 clips is compared with the batch that a plain loop makes from
the videos in memory. Each finished part is a line of FOLDER/parts.jsonl, and a rerun at the same
commit continues with the next part. The exit code is 1 if a value exceeds its bound.
"""

import argparse
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.results import commit, machine
from mmpt.batch import Split
from mmpt.datasets import MMDataset
from mmpt.datasets.fairseqmmdataset import FairseqMMDataset, PlannedBatchIterator
from mmpt.utils.command import run_command
from mmpt.utils.distributed import World
from mmpt.utils.io import atomic_write, read_json_lines
from mmpt.utils.log import get_logger, progress
from tests.support.leaks import Values, Watch
from tests.support.pages import write_marked
from tests.support.paths import ROOT
from tests.support.plain_batches import (
    EPOCHS,
    NUM_VIDEOS,
    SEED,
    C,
    V,
    digest,
    make_dataset,
    plain_digests,
    plan_of,
)
from tests.support.retri_task import make_model, make_task
from tests.support.small_corpus import make_small_corpus

logger = get_logger("soak")

SAMPLES = 20  # of memory and handles, in an epoch
BUFFER_SIZE = 10  # batches that fairseq reads in advance by default
BOUNDS = {
    "different batches": 0,
    "main process, MB": 4,
    "worker, MB": 4,
    "open files": 2,
    "memory maps": 20,
    "threads": 0,
    "open files, worker": 64,
    "memory maps, worker": 64,
    "processes": 0,
    "`/dev/shm`": 0,
    "other files in `retri/`": 0,
}
"""Largest allowed value of each quantity. A worker's batches in transit have up to 56 files."""
NUM_SETTLING = 20
"""Number of refreshes after which the memory of a process no longer grows. Shorter runs do not
check it."""
PAGE = ROOT / "docs/reliability.md"


# ---- the loaders


def epoch_batches(
    data: MMDataset, num_workers: int, num_batches: int, watch: Watch
) -> Iterator[dict[str, Any]]:
    """Yields the batches of all epochs, as training gets them, and samples memory and handles."""

    def plan(epoch: int, wanted: str | None) -> str:
        data.meta.set_candidates(plan_of(epoch, num_batches))  # type: ignore[attr-defined]
        return f"soak-{epoch}"

    every = max(5, num_batches // SAMPLES)
    for epoch in range(1, EPOCHS + 1):
        watch.begin_epoch()
        iterator = PlannedBatchIterator(
            FairseqMMDataset(data, training=True),
            plan=plan,
            epoch=epoch,
            batch_size=1,
            seed=SEED,
            num_workers=num_workers,
            buffer_size=BUFFER_SIZE,
        )
        batches = iterator.next_epoch_itr(shuffle=True)
        for place, batch in enumerate(batches):
            yield batch
            # At the end of an epoch, workers end one by one.
            if place % every == 0 and place < 0.9 * num_batches:
                watch.sample()
        del batch, batches, iterator
        watch.end_epoch()


def soak_loader(data: MMDataset, digests: np.ndarray, num_workers: int) -> Values:
    """Compares all batches of a loader with the plain loop, and returns the checks."""
    watch = Watch()
    num_batches = len(digests) // EPOCHS
    batches = epoch_batches(data, num_workers, num_batches, watch)
    what = f"items with {num_workers} workers"
    total = len(digests) * V * C
    different = 0
    count = 0
    for batch in progress(batches, total, what, logger, unit=V * C):
        expected = int(digests[count]) if count < len(digests) else None
        different += int(digest(batch) != expected)
        count += 1
    different += abs(len(digests) - count)
    del batch, batches
    return {"different batches": different, **watch.checks()}


# ---- the refreshes


def soak_refreshes(corpus: Path, folder: Path, num_refreshes: int) -> Values:
    """Plans epochs with a task of two loader workers, and returns the checks."""
    task = make_task(
        corpus, folder, "fairseq.dataset.num_workers=2", videos_at_once=NUM_VIDEOS
    )
    data = task.build_dataset(Split.TRAIN)
    assert data is not None
    model = make_model(task)
    first = task.config.retrieval.retri_epoch or 1
    epochs = range(first, first + num_refreshes)
    watch = Watch()
    for epoch in progress(epochs, num_refreshes, "refreshes", logger):
        task.plan_epoch(data, model, epoch, World())
        watch.end_epoch()
    checks = watch.checks()
    if num_refreshes < NUM_SETTLING:
        del checks["main process, MB"]
    expected = {f"plan_e{epoch}.json" for epoch in epochs} | {"hardness.jsonl"}
    found = {path.name for path in task.plan_dir.iterdir()}
    return {**checks, "other files in `retri/`": len(found ^ expected)}


# ---- the command


def read_digests(path: Path, data: MMDataset, num_batches: int) -> np.ndarray:
    """Returns the digests of the plain loop, which are computed once for all parts."""
    if not path.exists():
        digests = plain_digests(data.aligner, num_batches // EPOCHS)
        shown = progress(digests, num_batches * V * C, "items, plain", logger, V * C)
        table = np.fromiter(shown, np.uint64)
        with atomic_write(path, "wb") as file:
            np.save(file, table)
    return np.load(path)


def run_part(name: str, amount: int, version: str, folder: Path) -> Values:
    """Runs one part and returns its checks.

    Args:
        name: `refreshes`, or a number of loader workers, such as `2 workers`.
        amount: number of refreshes or items.
        version: the commit, which is in the name of the file of digests.
    """
    if name == "refreshes":
        corpus = folder / "corpus"
        if not corpus.exists():
            new = folder / "corpus-new"
            make_small_corpus(new)
            new.rename(corpus)
        with TemporaryDirectory(dir=folder) as run:
            return soak_refreshes(corpus, Path(run), amount)
    with TemporaryDirectory(dir=folder) as shards:
        data = make_dataset(Path(shards))
        path = folder / f"digests-{amount}-{version}.npy"
        digests = read_digests(path, data, amount // (V * C))
        return soak_loader(data, digests, int(name.split()[0]))


def run_parts(amounts: dict[str, int], folder: Path) -> list[dict[str, Any]]:
    """Runs the parts that this commit has not finished, and returns the results of all.

    Args:
        amounts: the number of items or refreshes of each part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "parts.jsonl"
    version = commit()
    results = []
    for name, amount in amounts.items():
        key = {"part": name, "amount": amount, "commit": version}
        known = [line for line in read_json_lines(path) if key.items() <= line.items()]
        if known:
            line = known[-1]
        else:
            begin = time.monotonic()
            values = run_part(name, amount, version, folder)
            minutes = (time.monotonic() - begin) / 60
            line = {
                **key,
                "minutes": minutes,
                "date": str(date.today()),
                "values": values,
            }
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        print(report(line), flush=True)
        results.append(line)
    return results


def excesses(values: Values) -> list[str]:
    """Returns the quantities that exceed their bounds."""
    return [name for name, value in values.items() if not value <= BOUNDS[name]]


def short(value: float) -> str:
    """Returns a number with at most two decimals."""
    rounded = round(value, 2) + 0.0  # not -0.0
    return f"{rounded:,g}"


def report(line: dict[str, Any]) -> str:
    """Returns the values of a part next to their bounds, as text."""
    values = line["values"]
    failed = excesses(values)
    text = [f"{'FAIL' if failed else 'PASS'}: {line['part']}, {line['amount']:,}"]
    for name, value in values.items():
        mark = "FAIL" if name in failed else "ok"
        text.append(f"  {mark:4} {name}: {short(value)}, at most {BOUNDS[name]}")
    return "\n".join(text)


def table(lines: Sequence[dict[str, Any]], command: str) -> str:
    """Returns the source and the values of all parts as Markdown."""
    day = max(line["date"] for line in lines)
    parts = [line["part"] for line in lines]
    amounts = [f"{line['amount']:,}" for line in lines]
    minutes = [f"{line['minutes']:.1f}" for line in lines]
    rows = [
        ["quantity", "at most", *parts],
        ["---", *["---:"] * (len(lines) + 1)],
        ["items or refreshes", "", *amounts],
        ["minutes", "", *minutes],
    ]
    for name, bound in BOUNDS.items():
        rows.append([name, str(bound)])
        for line in lines:
            value = line["values"].get(name)
            rows[-1].append("" if value is None else short(value))
    verdicts = ["FAIL" if excesses(line["values"]) else "PASS" for line in lines]
    rows.append(["result", "", *verdicts])
    source = f"Source: `{command}`, {day}, {lines[0]['commit']}, {machine()}"
    return "\n".join([source, "", *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def soak(options: argparse.Namespace, command: str) -> int:
    """Runs the parts, prints their table, and returns the exit code."""
    whole_epochs = EPOCHS * V * C
    num_items = math.ceil(options.items / whole_epochs) * whole_epochs
    amounts = {f"{number} workers": num_items for number in options.workers.split(",")}
    amounts["refreshes"] = options.refreshes
    results = run_parts(amounts, options.folder)
    text = table(results, command)
    print(text)
    if options.write:
        write_marked(options.write, "soak", text)
    return int(any(excesses(line["values"]) for line in results))


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--items", type=int, default=1_000_000, help="for each number of workers"
    )
    parser.add_argument("--workers", default="0,2,8", help="numbers of loader workers")
    parser.add_argument("--refreshes", type=int, default=100)
    parser.add_argument(
        "--write", type=Path, nargs="?", const=PAGE, help="replace the table of a page"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="torch.utils.data")
    logging.getLogger("mmpt").setLevel(logging.ERROR)
    command = ["python", "-m", "tests.support.soak", *sys.argv[1:]]
    return soak(options, " ".join(command))


if __name__ == "__main__":
    sys.exit(
        run_command(main, interrupt_message="run the same command again to continue")
    )
