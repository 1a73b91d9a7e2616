"""Features of others: every kind of file gives the same shards, and damaged ones are reported."""

import io
import json
import pickle
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli.pack import main
from mmpt.prepare.shards.feature_sources import find_places
from mmpt.shards.feature_info import FeatureInfo, read_feature_info, write_feature_info
from tests.support.feature_files import IDS, arguments, feature, naive_data, npy


def save_npz(path: Path, rows: np.ndarray) -> None:
    np.savez(f"{path}.npz", anything=rows)


def save_torch(path: Path, rows: np.ndarray) -> None:
    torch.save(torch.from_numpy(rows), f"{path}.pt")


def save_torch_dict(path: Path, rows: np.ndarray) -> None:
    torch.save({"features": torch.from_numpy(rows), "fps": 1.0}, f"{path}.pth")


def save_pickle(path: Path, rows: np.ndarray) -> None:
    Path(f"{path}.pkl").write_bytes(pickle.dumps({"features": rows}))


def save_pickle_5(path: Path, rows: np.ndarray) -> None:
    Path(f"{path}.pickle").write_bytes(pickle.dumps(rows, protocol=5))


SAVERS = [save_npz, save_torch, save_torch_dict, save_pickle, save_pickle_5]


def assert_packed(folder: Path) -> None:
    for shard, numbers in (("train_0", [0, 1, 2]), ("train_2", [6]), ("val_0", [7, 8])):
        data = folder / f"packed/{shard}_data.npy"
        assert data.read_bytes() == naive_data(numbers)


@pytest.mark.parametrize("save", SAVERS)
def test_a_file_per_video(raw, tmp_path, save):
    for number, name in enumerate(IDS):
        (raw / f"{name}.npy").unlink()
        save(raw / name, feature(number))
    assert main(arguments(raw)) == 0
    assert_packed(tmp_path)


def test_bfloat16_tensors_are_read(raw, tmp_path):
    (raw / "video0.npy").unlink()
    rows = torch.from_numpy(feature(0)).bfloat16()
    torch.save(rows, raw / "video0.pt")
    assert main(arguments(raw)) == 0
    packed = np.load(tmp_path / "packed/train_0_data.npy")[:4]
    np.testing.assert_array_equal(packed, rows.half().numpy())


def test_a_file_with_several_arrays_needs_a_key(raw, tmp_path):
    for number, name in enumerate(IDS):
        (raw / f"{name}.npy").unlink()
        np.savez(raw / f"{name}.npz", times=np.zeros(3), clip=feature(number))
    assert main(arguments(raw)) == 2
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert skipped["video0"] == (
        "must hold one array, but holds times, clip; name one with --key"
    )
    assert main(arguments(raw, "--key", "clip")) == 0
    assert_packed(tmp_path)


def test_damaged_archives_are_reported(raw, tmp_path):
    """Truncated, and with wrong compressed bytes."""
    for number in range(2):
        (raw / f"video{number}.npy").unlink()
        path = raw / f"video{number}.npz"
        np.savez_compressed(path, features=feature(number))
        content = bytearray(path.read_bytes())
        content = content[:-9] if number else content[:200] + bytes(9) + content[209:]
        path.write_bytes(content)
    assert main(arguments(raw)) == 0
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert sorted(skipped) == ["video0", "video1"]
    for reason in skipped.values():
        assert reason.startswith("not a complete .npy or .npz file")


def write_tars(folder: Path, suffix: str = ".npy") -> Path:
    """Writes the features to two tars, with a caption next to each."""
    folder.mkdir()
    for shard, numbers in enumerate([range(5), range(5, 9)]):
        with tarfile.open(folder / f"{shard:06d}.tar", "w") as tar:
            for number in numbers:
                contents = {suffix: npy(feature(number)), ".txt": b"cut"}
                for ending, content in contents.items():
                    member = tarfile.TarInfo(f"{IDS[number]}{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


@pytest.mark.parametrize("suffix", [".npy", ".clip.npy"])
def test_webdataset_tars(raw, tmp_path, suffix):
    tars = write_tars(tmp_path / "tars", suffix)
    write_feature_info(tars, FeatureInfo(encoder="hf:clip", width=512, fps=2))
    options = arguments(raw)
    options[options.index("--features") + 1] = str(tars)
    assert main(options) == 0
    assert_packed(tmp_path)
    assert read_feature_info(tmp_path / "packed").encoder == "hf:clip"
    assert find_places(tars, ["none"]) == {}


def test_an_hdf5_file(raw, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "features.h5"
    for key, place in ((None, "{}"), ("clip", "clip/{}"), ("clip", "{}/clip")):
        with h5py.File(path, "w") as file:
            for number, name in enumerate(IDS):
                file[place.format(name)] = feature(number)
        options = arguments(raw, *(["--key", key] if key else []))
        options[options.index("--features") + 1] = str(path)
        assert main(options) == 0
        assert_packed(tmp_path)


def test_hdf5_without_h5py_is_named(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "h5py", None)
    path = tmp_path / "features.h5"
    path.write_bytes(b"\x89HDF")
    options = arguments(raw)
    options[options.index("--features") + 1] = str(path)
    assert main(options) == 2
    assert "pip install h5py" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_code_in_a_file_does_not_run(raw, tmp_path, capsys):
    (raw / "video0.npy").unlink()
    (raw / "video0.pkl").write_bytes(pickle.dumps(Evil()))
    (raw / "video1.npy").unlink()
    torch.save(Evil(), raw / "video1.pt")
    assert main(arguments(raw)) == 0
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert "only pickles of plain values" in skipped["video0"]
    assert "torch does not read it without code" in skipped["video1"]
    assert "code ran" not in capsys.readouterr().out


def test_the_rate_and_the_encoder_can_be_given(raw, tmp_path, capsys):
    assert main(arguments(raw, "--fps", "2", "--encoder", "InternVideo2")) == 0
    info = read_feature_info(tmp_path / "packed")
    assert (info.encoder, info.fps, info.width) == ("InternVideo2", 2, 512)
    write_feature_info(raw, info)
    assert main(arguments(raw, "--fps", "3", target="other")) == 2
    assert "`fps` must be 3.0, as given by --fps, but is 2.0" in capsys.readouterr().err


def test_a_source_of_another_kind_is_named(raw, tmp_path, capsys):
    (tmp_path / "features.zip").write_bytes(b"PK")
    options = arguments(raw)
    options[options.index("--features") + 1] = str(tmp_path / "features.zip")
    assert main(options) == 2
    assert "must be a folder of features, a .tar or an .h5" in capsys.readouterr().err
