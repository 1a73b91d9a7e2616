"""Small feature files to pack, and what packing must make of them; for the tests of packing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

LENGTHS = (4, 1, 7, 3, 12, 2, 5, 9, 6)
IDS = [f"video{number}" for number in range(len(LENGTHS))]


def feature(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.standard_normal((LENGTHS[number], 512)).astype(np.float16)


def write_features(folder: Path) -> Path:
    """Make a folder of features, a training list of the first seven and a validation list of the
    rest.
    """
    raw = folder / "raw"
    raw.mkdir()
    for number, name in enumerate(IDS):
        np.save(raw / f"{name}.npy", feature(number))
    (folder / "train.lst").write_text("\n".join(IDS[:7]) + "\n")
    (folder / "val.lst").write_text("\n".join(IDS[7:]) + "\n")
    return raw


def arguments(raw: Path, *more: object, target: str = "packed") -> list[str]:
    top = raw.parent
    lists = ["--train-list", top / "train.lst", "--val-list", top / "val.lst"]
    return [
        str(one)
        for one in ("--features", raw, "--target", top / target, *lists, "--shard-size", 3, *more)
    ]


def hashes(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def naive_files(numbers: list[int], folder: Path) -> tuple[bytes, bytes]:
    """What NumPy writes of the concatenation."""
    arrays = [feature(number) for number in numbers]
    np.save(folder / "naive_data.npy", np.concatenate(arrays))
    np.save(
        folder / "naive_starts.npy",
        np.array([0, *np.cumsum([len(array) for array in arrays])], dtype=np.int64),
    )
    return (folder / "naive_data.npy").read_bytes(), (folder / "naive_starts.npy").read_bytes()
