"""Every kind of feature file gives the same shards, and unusable files are reported."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli.pack import main
from tests.support.feature_files import IDS, arguments, assert_packed, feature


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


def save_array_with_torch(path: Path, rows: np.ndarray) -> None:
    torch.save({"features": rows, "fps": 1.0}, f"{path}.pth")


SAVERS = [
    save_npz,
    save_torch,
    save_torch_dict,
    save_array_with_torch,
    save_pickle,
    save_pickle_5,
]


@pytest.mark.parametrize("save", SAVERS)
def test_features_may_be_in_one_file_per_video(raw, tmp_path, save):
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


def test_tensors_that_numpy_does_not_support_are_reported(raw, tmp_path):
    rows = torch.from_numpy(feature(0))
    tensors = {
        "video0": rows.float().requires_grad_(),  # this one is read
        "video1": rows.to(torch.float8_e4m3fn),
        "video2": rows.to_sparse(),
    }
    for name, tensor in tensors.items():
        (raw / f"{name}.npy").unlink()
        torch.save(tensor, raw / f"{name}.pth")
    assert main(arguments(raw)) == 0
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert list(skipped) == ["video1", "video2"]
    assert "cannot represent (torch.float8_e4m3fn, torch.strided" in skipped["video1"]
    assert "cannot represent (torch.float16, torch.sparse_coo" in skipped["video2"]
    packed = np.load(tmp_path / "packed/train_0_data.npy")
    np.testing.assert_array_equal(packed, feature(0))


def test_names_of_arrays_may_be_numbers(raw, tmp_path):
    for number, name in enumerate(IDS):
        (raw / f"{name}.npy").unlink()
        (raw / f"{name}.pkl").write_bytes(pickle.dumps({0: feature(number)}))
    assert main(arguments(raw)) == 0
    assert_packed(tmp_path)


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
    """One archive is truncated, and one has wrong compressed bytes."""
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


def test_an_hdf5_file_of_other_data_is_reported(raw, tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        file["video0"] = "a text"
        file["video1"] = ["several", "texts"]
        file["video2/clip"] = feature(2)
        file["video3/s3d"] = feature(3)
    assert main(arguments(raw, source=path)) == 2
    assert "holds a bytes instead of an array" in capsys.readouterr().err
    assert main(arguments(raw, "--key", "clip", "--splits", "train", source=path)) == 0
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert list(skipped) == ["video0", "video1", *IDS[3:7]]
    assert "holds object of shape [2]" in skipped["video1"]
    assert skipped["video3"] == (
        "no data set of this id or under the key `clip`; the group of this id has s3d; correct "
        "--key"
    )
    assert "the file has video0, video1, video2, video3; correct" in skipped["video4"]


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_code_in_a_file_is_not_run(raw, tmp_path, capsys):
    (raw / "video0.npy").unlink()
    (raw / "video0.pkl").write_bytes(pickle.dumps(Evil()))
    (raw / "video1.npy").unlink()
    torch.save(Evil(), raw / "video1.pt")
    (raw / "video2.npy").unlink()
    torch.save(np.array([Evil()]), raw / "video2.pt")
    assert main(arguments(raw)) == 0
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert "only pickles of plain values" in skipped["video0"]
    for name in ("video1", "video2"):
        assert skipped[name] == (
            "torch cannot read it without running its code (it is damaged, or has objects "
            "other than tensors and arrays of numbers); save tensors, or .npy files"
        )
    assert "code ran" not in capsys.readouterr().out
