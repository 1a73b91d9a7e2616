"""Features of other programs, in tars and HDF5 files, and the description of features."""

import io
import sys
import tarfile
from pathlib import Path

import pytest

from mmpt.cli.pack import main
from mmpt.prepare.shards.feature_sources import find_places
from mmpt.shards.feature_info import FeatureInfo, read_feature_info, write_feature_info
from tests.support.feature_files import IDS, arguments, assert_packed, feature, npy


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
    options = arguments(raw, source=tars)
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
        options = arguments(raw, *(["--key", key] if key else []), source=path)
        assert main(options) == 0
        assert_packed(tmp_path)


def test_the_entries_of_an_hdf5_file_are_listed_in_the_error(raw, tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        for number, name in enumerate(IDS):
            file[f"clip/{name}"] = feature(number)
    for more in ([], ["--key", "s3d"]):
        assert main(arguments(raw, *more, source=path)) == 2
        assert "but has 1 entry, first `clip`." in capsys.readouterr().err
    with h5py.File(path, "w") as file:
        file["clip"] = feature(0)
    assert main(arguments(raw, "--key", "clip", source=path)) == 2
    assert "but has 1 entry, first `clip`." in capsys.readouterr().err
    path.write_bytes(b"text")
    assert main(arguments(raw, source=path)) == 2
    assert f"{path}: cannot be read (" in capsys.readouterr().err


def test_a_missing_h5py_is_reported(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "h5py", None)
    path = tmp_path / "features.h5"
    path.write_bytes(b"\x89HDF")
    options = arguments(raw, source=path)
    assert main(options) == 2
    assert "pip install h5py" in capsys.readouterr().err


def test_the_rate_and_the_encoder_can_be_given(raw, tmp_path, capsys):
    assert main(arguments(raw, "--fps", "2", "--encoder", "InternVideo2")) == 0
    info = read_feature_info(tmp_path / "packed")
    assert (info.encoder, info.fps, info.width) == ("InternVideo2", 2, 512)
    write_feature_info(raw, info)
    assert main(arguments(raw, "--fps", "3", target="other")) == 2
    assert "`fps` must be 3.0, as given by --fps, but is 2.0" in capsys.readouterr().err


@pytest.mark.parametrize("encoder", ['"encoder": null, ', ""])
def test_options_add_what_is_missing_in_features_json(raw, tmp_path, capsys, encoder):
    (raw / "features.json").write_text(f'{{{encoder}"width": 512}}')
    assert main(arguments(raw, "--encoder", "clip", "--fps", "2")) == 0
    info = FeatureInfo(encoder="clip", width=512, fps=2)
    assert read_feature_info(tmp_path / "packed") == info
    (raw / "features.json").write_text(info.model_dump_json())
    assert main(arguments(raw, "--encoder", "s3d")) == 2
    assert "must be s3d, as given by --encoder, but is clip" in capsys.readouterr().err


def test_an_unsupported_source_is_reported(raw, tmp_path, capsys):
    (tmp_path / "features.zip").write_bytes(b"PK")
    options = arguments(raw, source=tmp_path / "features.zip")
    assert main(options) == 2
    assert (
        "must be a folder of feature files, of tars or of LMDB"
        in capsys.readouterr().err
    )
