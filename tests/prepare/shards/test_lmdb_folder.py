"""Tests of LMDB folders of features, as HERO writes them."""

import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.cli.pack import main
from mmpt.errors import DataError
from mmpt.prepare.shards.lmdb_folder import read_value
from tests.support.feature_files import IDS, arguments, feature, naive_data, npy

lmdb = pytest.importorskip("lmdb")
msgpack = pytest.importorskip("msgpack")


def npz(rows: np.ndarray, **more: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, features=rows, **more)
    return file.getvalue()


def npz_of_hero(rows: np.ndarray) -> bytes:
    """Older versions of NumPy stored the argument `allow_pickle=True` of `np.savez`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("features.npy", npy(rows))
        archive.writestr("allow_pickle.npy", npy(np.array(True)))
    return file.getvalue()


def array_map(rows: np.ndarray) -> dict[bytes, Any]:
    """Returns the map to which msgpack_numpy converts an array."""
    return {
        b"nd": True,
        b"type": rows.dtype.str,
        b"kind": b"",
        b"shape": rows.shape,
        b"data": rows.tobytes(),
    }


def packed(rows: np.ndarray) -> bytes:
    return msgpack.packb({"features": array_map(rows)}, use_bin_type=True)


def packed_by_old_versions(rows: np.ndarray) -> bytes:
    """Text and bytes have the same type."""
    return msgpack.packb({"features": array_map(rows)}, use_bin_type=False)


def bare(rows: np.ndarray) -> bytes:
    return msgpack.packb(array_map(rows))


def big_endian(rows: np.ndarray) -> bytes:
    return packed(rows.astype(">f4"))


def write_lmdb(folder: Path, values: dict[str, bytes]) -> Path:
    """Writes an LMDB folder, and returns it."""
    env = lmdb.open(str(folder), map_size=1 << 24)
    with env, env.begin(write=True) as transaction:
        for name, value in values.items():
            transaction.put(name.encode(), value)
    (folder / "lock.mdb").unlink()
    return folder


def options_for(raw: Path, folder: Path, *more: object) -> list[str]:
    options = arguments(raw, *more)
    options[options.index("--features") + 1] = str(folder)
    return options


@pytest.mark.parametrize(
    "encode", [npz, npz_of_hero, npy, packed, packed_by_old_versions, bare, big_endian]
)
def test_every_kind_of_value_gives_the_same_shards(
    raw: Path, tmp_path: Path, encode: Callable[[np.ndarray], bytes]
) -> None:
    values = {name: encode(feature(number)) for number, name in enumerate(IDS)}
    folder = write_lmdb(tmp_path / "features", values)
    assert main(options_for(raw, folder)) == 0
    for shard, numbers in (("train_0", [0, 1, 2]), ("train_2", [6]), ("val_0", [7, 8])):
        data = tmp_path / f"packed/{shard}_data.npy"
        assert data.read_bytes() == naive_data(numbers)
    assert [path.name for path in folder.iterdir()] == ["data.mdb"]


def test_unusable_values_are_reported(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("code ran",)

    rows = feature(0)
    objects = array_map(rows) | {
        b"type": "|O",
        b"kind": b"O",
        b"data": pickle.dumps(Evil()),
    }
    unsafe = io.BytesIO()
    np.savez(unsafe, features=np.array([Evil()], dtype=object))
    values = {
        "video0": msgpack.packb({"features": objects}),
        "video1": unsafe.getvalue(),
        "video2": packed(rows)[:-9],
        "video3": msgpack.packb({"features": array_map(rows) | {b"shape": [3, 512]}}),
        "video4": npz(rows)[:-9],
        "video5": msgpack.packb({"clip": array_map(rows), "boxes": []}),
        "video7": packed(rows),
        "video8": msgpack.packb({"features": array_map(rows) | {b"shape": b"x"}}),
    }
    folder = write_lmdb(tmp_path / "features", values)
    assert main(options_for(raw, folder)) == 2
    assert main(options_for(raw, folder, "--splits", "val")) == 0
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    skipped |= json.loads((tmp_path / "packed/val_not_packed.json").read_text())
    reasons = {
        "video0": "must hold floats, but has the type '|O'; code in a file is not run",
        "video1": "Object arrays cannot be loaded",
        "video2": "neither an .npz file nor msgpack",
        "video3": "must be float16 of shape [3, 512], but has 4096 bytes",
        "video4": "not a complete .npy or .npz file (File is not a zip file)",
        "video5": "must hold one array, but holds clip, boxes; name one with --key",
        "video6": "no entry of this id",
        "video8": "must be float16 of shape",
    }
    assert set(skipped) == set(reasons)
    for name, reason in reasons.items():
        assert reason in skipped[name]
    assert "code ran" not in capsys.readouterr().out
    assert main(options_for(raw, folder, "--splits", "train", "--key", "clip")) == 0
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert "video5" not in skipped


def test_a_damaged_data_file_is_an_error(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_lmdb(tmp_path / "features", {"video0": npz(feature(0))})
    data = folder / "data.mdb"
    content = data.read_bytes()
    data.write_bytes(content[:-4096])
    assert main(options_for(raw, folder)) == 2
    assert f"must have {len(content)} bytes, but has" in capsys.readouterr().err
    data.write_bytes(b"text" * 10_000)
    assert main(options_for(raw, folder)) == 2
    assert "must be the data file of LMDB" in capsys.readouterr().err


def test_missing_packages_are_reported(
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_lmdb(tmp_path / "features", {"video0": packed(feature(0))})
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(DataError, match="pip install msgpack"):
        read_value(folder / "data.mdb", "video0")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert main(options_for(raw, folder)) == 2
    assert "pip install lmdb" in capsys.readouterr().err
