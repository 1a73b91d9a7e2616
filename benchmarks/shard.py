"""MB/s of packing feature files into shards, beside a plain copy of the same bytes, in one run.

    python benchmarks/shard.py    # 0.8 GB in the temporary folder

Writes videos of 100 to 300 seconds as `.npy`. The copy appends their bytes to one file, unread, and
calls fsync as packing does; packing also parses, casts to float16, looks for NaN and writes
manifests and the meta file. They take turns. Files come from the page cache after the first turn,
so the disk's part is the writing.
"""

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from mmpt.batch import Split
from mmpt.prepare.shards.packing import pack_features
from results import Figure, Options, in_turns, record, run_script

ROUNDS = 3
BUFFER = 1 << 20


def generate(folder: Path, num_videos: int, dtype: str) -> list[str]:
    """Write random features; return the ids."""
    rng = np.random.default_rng(0)
    ids = [f"video{number:06d}" for number in range(num_videos)]
    for name in ids:
        feature = rng.standard_normal((int(rng.integers(100, 300)), 512), np.float32)
        np.save(folder / f"{name}.npy", feature.astype(dtype))
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
    cores, dtypes = os.cpu_count() or 1, ("float16", "float32", "float64")
    parser = Options(__doc__)
    parser.number("--videos", 4096, "videos generated (0.2 MB each)")
    parser.number("--shard-size", 2048, "videos per shard")
    parser.number("--workers", cores, "shards at once")
    parser.add_argument("--dtype", choices=dtypes, default="float16", help="of the feature files")
    parser.add_argument("--folder", help="on the disk to measure (default: the temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        raw, target = Path(name) / "raw", Path(name) / "packed"
        raw.mkdir()
        ids = generate(raw, args.videos, args.dtype)
        megabytes = sum(path.stat().st_size for path in raw.iterdir()) / 1e6
        workers = sorted({1, args.workers})

        def pack(count: int, _: int) -> None:
            to = target / str(count)
            pack_features(raw, to, Split.TRAIN, ids, shard_size=args.shard_size, workers=count)

        # The warming round fills the page cache.
        copied, *packed = in_turns(
            ROUNDS,
            lambda _: plain_copy(raw, ids, target / "copy"),
            *(partial(pack, count) for count in workers),
            check=lambda *_: shutil.rmtree(target),
        )
    note = f"{megabytes:.0f} MB in {args.videos} files of {args.dtype}; plain only copies the bytes"
    plain = [megabytes / seconds for seconds in copied]
    figures = []
    for count, taken in zip(workers, packed, strict=True):
        rates = [megabytes / seconds for seconds in taken]
        figures.append(Figure(f"packing, {count} processes", "MB/s", rates, plain, note))
    record(figures)


if __name__ == "__main__":
    run_script(main)
