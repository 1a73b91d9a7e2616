"""MB/s of packing feature files into shards, and of a plain copy of the same bytes.

    python benchmarks/shard.py    # 0.8 GB in the temporary folder

The input is one .npy file per video of 100 to 300 seconds. The plain side appends the bytes of all
files to one file and calls fsync, as packing does. Packing also parses the files, casts them to
float16, checks for NaN, and writes manifests and the meta file. The sides take turns. After the
first round the input is in the page cache, so that the disk only affects the writing.
"""

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from mmpt.batch import Split
from mmpt.prepare.shards.packing import pack_features
from results import Figure, Options, rates, record, run_script, time_in_turns

ROUNDS = 3
BUFFER = 1 << 20


def generate(folder: Path, num_videos: int, dtype: str) -> list[str]:
    """Writes random features and returns the ids of the videos."""
    rng = np.random.default_rng(0)
    ids = [f"video{number:06d}" for number in range(num_videos)]
    for name in ids:
        seconds = int(rng.integers(100, 300))
        feature = rng.standard_normal((seconds, 512), np.float32)
        np.save(folder / f"{name}.npy", feature.astype(dtype))
    return ids


def plain_copy(folder: Path, ids: list[str], target: Path) -> None:
    """Appends all files to one."""
    target.mkdir(parents=True)
    with open(target / "all", "wb") as whole:
        for name in ids:
            with open(folder / f"{name}.npy", "rb") as file:
                shutil.copyfileobj(file, whole, BUFFER)
        whole.flush()
        os.fsync(whole.fileno())


def main() -> None:
    """Runs the benchmark."""
    cores = os.cpu_count() or 1
    dtypes = ("float16", "float32", "float64")
    parser = Options(__doc__)
    parser.number("--videos", 4096, "number of videos (0.2 MB each)")
    parser.number("--shard-size", 2048, "videos per shard")
    parser.number("--workers", cores, "shards that are packed at the same time")
    parser.add_argument(
        "--dtype", choices=dtypes, default="float16", help="type of the features"
    )
    parser.add_argument(
        "--folder", help="folder to work in (default: the temporary folder)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        raw = Path(name) / "raw"
        target = Path(name) / "packed"
        raw.mkdir()
        ids = generate(raw, args.videos, args.dtype)
        megabytes = sum(path.stat().st_size for path in raw.iterdir()) / 1e6
        num_workers = sorted({1, args.workers})

        def pack(workers: int, _: int) -> None:
            pack_features(
                raw,
                target / str(workers),
                Split.TRAIN,
                ids,
                shard_size=args.shard_size,
                workers=workers,
            )

        copied, *packed = time_in_turns(
            ROUNDS,
            lambda _: plain_copy(raw, ids, target / "copy"),
            *(partial(pack, workers) for workers in num_workers),
            check=lambda *_: shutil.rmtree(target),  # the next round writes again
        )
    note = f"{megabytes:.0f} MB in {args.videos} files of {args.dtype}; plain only copies the bytes"
    plain = rates(megabytes, copied)
    figures = []
    for workers, taken in zip(num_workers, packed, strict=True):
        what = f"packing, {workers} processes"
        figures.append(Figure(what, "MB/s", rates(megabytes, taken), plain, note))
    record(figures, args.out)


if __name__ == "__main__":
    run_script(main)
