"""Small feature files for the tests of packing, and the expected content of shards."""

import errno
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

LENGTHS = (4, 1, 7, 3, 12, 2, 5, 9, 6)
IDS = [f"video{number}" for number in range(len(LENGTHS))]


def feature(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.standard_normal((LENGTHS[number], 512)).astype(np.float16)


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Makes `np.load` fail for a file, as on a broken disk."""
    load = np.load

    def refused(file, **options):
        if file == path:
            raise OSError(errno.EIO, "broken")
        return load(file, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(np, "load", refused)
        yield


def write_features(folder: Path) -> Path:
    """Writes feature files, a training list with the first seven, and a validation list.

    Returns:
        The folder of the feature files.
    """
    raw = folder / "raw"
    raw.mkdir()
    for number, name in enumerate(IDS):
        np.save(raw / f"{name}.npy", feature(number))
    (folder / "train.lst").write_text("\n".join(IDS[:7]) + "\n")
    (folder / "val.lst").write_text("\n".join(IDS[7:]) + "\n")
    return raw


def arguments(
    raw: Path, *more: object, target: str = "packed", source: Path | None = None
) -> list[str]:
    """Returns the arguments of `mmpt pack`.

    Args:
        raw: the folder of the feature files, next to the lists.
        more: more arguments.
        target: name of the folder of shards, next to the lists.
        source: the features, if they are elsewhere.
    """
    top = raw.parent
    lists = ["--train-list", top / "train.lst", "--val-list", top / "val.lst"]
    options = [
        "--features",
        source or raw,
        "--target",
        top / target,
        *lists,
        "--workers",
        1,
    ]
    return [str(one) for one in (*options, "--shard-size", 3, *more)]


def assert_packed(folder: Path) -> None:
    """Compares the shards in `<folder>/packed` with all features of the lists."""
    for shard, numbers in (("train_0", [0, 1, 2]), ("train_2", [6]), ("val_0", [7, 8])):
        data = folder / f"packed/{shard}_data.npy"
        assert data.read_bytes() == naive_data(numbers)


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def npy(array: np.ndarray) -> bytes:
    """Returns the `.npy` file of an array."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def naive_data(numbers: list[int]) -> bytes:
    """Returns the `.npy` file of the concatenation of some features."""
    return npy(np.concatenate([feature(number) for number in numbers]))
