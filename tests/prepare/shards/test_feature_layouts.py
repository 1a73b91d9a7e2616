"""Features in sub-folders, in tars of other files than `.npy`, and in one file for all videos."""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.cli.pack import main
from mmpt.errors import DataError
from mmpt.prepare.shards.feature_sources import find_places, list_ids
from tests.support.feature_files import IDS, arguments, assert_packed, feature, npy

Save = Callable[[io.BytesIO, np.ndarray], Any]


def save_torch(file: io.BytesIO, rows: np.ndarray) -> None:
    torch.save(torch.from_numpy(rows), file)


def save_npz(file: io.BytesIO, rows: np.ndarray) -> None:
    np.savez(file, rows)


def content(save: Save, number: int) -> bytes:
    file = io.BytesIO()
    save(file, feature(number))
    return file.getvalue()


FILES: list[tuple[str, Save]] = [
    (".pth.tar", save_torch),
    (".pth", save_torch),
    (".pt", save_torch),
    (".npz", save_npz),
    (".mp4.npy", np.save),
]
ALL_FILES = pytest.mark.parametrize(("suffix", "save"), FILES)


@ALL_FILES
def test_files_may_be_in_sub_folders(raw, tmp_path, suffix, save):
    parts = tmp_path / "parts"
    for number, name in enumerate(IDS):
        part = parts / f"{number % 3}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"{name}{suffix}").write_bytes(content(save, number))
    (parts / "loop").symlink_to(parts)
    assert main(arguments(raw, source=parts)) == 0
    assert_packed(tmp_path)


@ALL_FILES
@pytest.mark.parametrize("part", ["", "01/"])
def test_tars_may_contain_other_files_than_npy(raw, tmp_path, suffix, save, part):
    path = tmp_path / "01.tar"
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(IDS):
            data = content(save, number)
            member = tarfile.TarInfo(f"./{part}{name}{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert main(arguments(raw, source=path)) == 0
    assert_packed(tmp_path)


def test_checkpoints_of_torch_may_end_in_tar(raw, tmp_path):
    for number, name in enumerate(IDS):
        (raw / f"{name}.npy").unlink()
        (raw / f"{name}.pth.tar").write_bytes(content(save_torch, number))
    assert main(arguments(raw)) == 0
    assert_packed(tmp_path)


def test_a_video_in_two_folders_is_an_error(raw, capsys):
    (raw / "old").mkdir()
    second = raw / "old/video3.npz"
    np.savez(second, feature(3))
    assert main(arguments(raw)) == 2
    assert capsys.readouterr().err == (
        f"error: {second}: a video must have one feature file, but `video3` also has "
        f"{raw / 'video3.npy'}. Remove one of them.\n"
    )
    (raw / "old").rename(raw / ".old")  # hidden
    assert main(arguments(raw)) == 0


def test_an_id_may_include_the_folder_of_its_file(tmp_path):
    paths = [tmp_path / "a/v.npy", tmp_path / "v.npy"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(npy(feature(0)))
    places = find_places(tmp_path, ["a/v", "v"])
    assert [place.path for place in places.values()] == paths


def all_features(suffix: str = "") -> dict[str, np.ndarray]:
    return {f"{name}{suffix}": feature(number) for number, name in enumerate(IDS)}


def one_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(all_features()))


def one_torch_file(path: Path) -> None:
    tensors = {name: torch.from_numpy(rows) for name, rows in all_features().items()}
    torch.save(tensors, path)


def one_torch_file_of_arrays(path: Path) -> None:
    torch.save(all_features(), path)


def one_torch_file_of_dicts(path: Path) -> None:
    torch.save(
        {
            name: {"features": torch.from_numpy(rows), "fps": 1}
            for name, rows in all_features().items()
        },
        path,
    )


def one_npz(path: Path) -> None:
    np.savez(path, **all_features())


def one_lmdb(path: Path, suffix: str = "") -> None:
    lmdb = pytest.importorskip("lmdb")
    env = lmdb.open(str(path), subdir=False, map_size=1 << 24)
    with env, env.begin(write=True) as transaction:
        for name, rows in all_features(suffix).items():
            transaction.put(name.encode(), npy(rows))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        *[("all.pickle", one_pickle), ("all.pkl", one_pickle)],
        *[("all.pth", one_torch_file), ("all.pt", one_torch_file_of_dicts)],
        *[("arrays.pth", one_torch_file_of_arrays), ("all.npz", one_npz)],
        *[("all.lmdb", one_lmdb), ("all.db", one_lmdb)],
    ],
)
def test_all_videos_may_be_in_one_file(raw, tmp_path, name, write):
    path = tmp_path / name
    write(path)
    assert main(arguments(raw, "--workers", 2, source=path)) == 0
    assert_packed(tmp_path)


def pickle_of_videos(path: Path) -> None:
    path.write_bytes(pickle.dumps(all_features(".mp4")))


def lmdb_of_videos(path: Path) -> None:
    one_lmdb(path, ".mp4")


def hdf5_of_videos(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, rows in all_features(".MP4").items():
            file[name] = rows


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("all.pkl", pickle_of_videos),
        ("all.lmdb", lmdb_of_videos),
        ("all.h5", hdf5_of_videos),
    ],
)
def test_keys_may_have_the_suffix_of_a_video(raw, tmp_path, name, write):
    path = tmp_path / name
    write(path)
    assert main(arguments(raw, source=path)) == 0
    assert_packed(tmp_path)
    assert sorted(list_ids(path)) == IDS


def test_two_keys_of_a_video_are_an_error(tmp_path):
    path = tmp_path / "all.pkl"
    path.write_bytes(pickle.dumps({"v": feature(0), "v.mp4": feature(1)}))
    assert list(find_places(path, ["v", "v.mp4"])) == ["v", "v.mp4"]
    with pytest.raises(DataError, match="but `v` has `v` and `v"):
        find_places(path, ["v"])


def test_a_file_without_the_videos_is_reported(raw, tmp_path, capsys):
    path = tmp_path / "all.pkl"
    path.write_bytes(pickle.dumps({"v_1": feature(0), "v_2": feature(1)}))
    assert main(arguments(raw, source=path)) == 2
    assert "but has 2 entries, first `v_1`, `v_2`." in capsys.readouterr().err
    path.write_bytes(pickle.dumps([1, 2]))
    assert main(arguments(raw, source=path)) == 2
    message = f"{path}: must hold a mapping of video ids to arrays, but holds a list."
    assert message in capsys.readouterr().err
    for name in ("all.pkl", "all.npz", "all.pth"):
        (tmp_path / name).write_bytes(b"x")
        assert main(arguments(raw, source=tmp_path / name)) == 2
        message = capsys.readouterr().err
        assert message.count(str(tmp_path / name)) == 1
        assert message.startswith("error: ")


def test_an_lmdb_folder_without_the_videos_is_reported(raw, tmp_path, capsys):
    lmdb = pytest.importorskip("lmdb")
    env = lmdb.open(str(tmp_path / "features"), map_size=1 << 24)
    with env, env.begin(write=True) as transaction:
        transaction.put(b"v_1", npy(feature(0)))
    assert main(arguments(raw, source=tmp_path / "features")) == 2
    assert "but has 1 entry, first `v_1`." in capsys.readouterr().err
