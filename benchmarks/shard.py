"""MB/s of packing feature files into shards, beside a plain copy of the same bytes, in one run.

    python benchmarks/shard.py [--videos 4096] [--shard-size 2048] [--workers 2] [--folder DIR]

Writes videos of 100 to 300 seconds as `.npy`. The copy appends their bytes to one file, unread, and
calls fsync as packing does; packing also parses, casts to float16, looks for NaN and writes
manifests and the meta file. They take turns. Files come from the page cache after the first turn,
so the disk's part is the writing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmpt.batch import Split
from mmpt.prepare.shards.packing import pack_features
from results import Figure, at_least, record, run_script, timed

TURNS = 3
BUFFER = 1 << 20


def generate(folder: Path, num_videos: int, dtype: str) -> list[str]:
    """Write random features; return the ids."""
    rng = np.random.default_rng(0)
    ids = [f"video{number:06d}" for number in range(num_videos)]
    for name in ids:
        np.save(
            folder / f"{name}.npy",
            rng.standard_normal((int(rng.integers(100, 300)), 512), np.float32).astype(dtype),
        )
    return ids


def plain_copy(folder: Path, ids: list[str], target: Path) -> None:
    """Append all files to one."""
    target.mkdir(parents=True)
    with open(target / "all", "wb") as whole:
        for name in ids:
            with open(folder / f"{name}.npy", "rb") as file:
                shutil.copyfileobj(file, whole, BUFFER)
        whole.flush()
        os.fsync(whole.fileno())


def main() -> None:
    """Generate, measure in turns, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--videos", type=at_least(1), default=4096, help="videos generated (0.2 MB each)"
    )
    parser.add_argument("--shard-size", type=at_least(1), default=2048, help="videos per shard")
    parser.add_argument(
        "--workers", type=at_least(1), default=os.cpu_count() or 1, help="shards at once"
    )
    parser.add_argument(
        "--dtype",
        choices=("float16", "float32", "float64"),
        default="float16",
        help="dtype of the feature files",
    )
    parser.add_argument(
        "--folder", help="a folder on the disk to measure (default: the temporary folder)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        raw, target = Path(name) / "raw", Path(name) / "packed"
        raw.mkdir()
        ids = generate(raw, args.videos, args.dtype)
        megabytes = sum(path.stat().st_size for path in raw.iterdir()) / 1e6

        def pack(workers: int) -> Callable[[Path], object]:
            return lambda to: pack_features(
                raw, to, Split.TRAIN, ids, shard_size=args.shard_size, workers=workers
            )

        ways = {
            0: lambda to: plain_copy(raw, ids, to),
            **{workers: pack(workers) for workers in {1, args.workers}},
        }
        rates: dict[int, list[float]] = {way: [] for way in ways}
        for turn in range(TURNS + 1):
            for way, work in ways.items():
                took, _ = timed(work, target)
                shutil.rmtree(target)
                if turn:  # the first turn fills the page cache
                    rates[way].append(megabytes / took)
    copied = rates.pop(0)
    note = f"{megabytes:.0f} MB in {args.videos} files of {args.dtype}; plain only copies the bytes"
    record(
        [Figure(f"packing, {n} processes", "MB/s", ours, copied, note) for n, ours in rates.items()]
    )


if __name__ == "__main__":
    run_script(main)
