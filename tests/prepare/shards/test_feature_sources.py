"""Features of other programs, in tars and HDF5 files, and the description of features."""

import io
import json
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mmpt.cli.pack import main
from mmpt.prepare.shards.feature_arrays import read_array
from mmpt.prepare.shards.feature_sources import find_places
from mmpt.shards.feature_info import FeatureInfo, read_feature_info, write_feature_info
from tests.support.feature_files import IDS, arguments, assert_packed, feature, npy


def write_tar(path: Path, contents: Mapping[str, bytes]) -> Path:
    """Writes a tar with the given files."""
    with tarfile.open(path, "w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_tars(folder: Path, suffix: str = ".npy") -> Path:
    """Writes the features to two tars, with a caption next to each."""
    folder.mkdir()
    for shard, numbers in enumerate([range(5), range(5, 9)]):
        contents: dict[str, bytes] = {}
        for number in numbers:
            contents[f"{IDS[number]}{suffix}"] = npy(feature(number))
            contents[f"{IDS[number]}.txt"] = b"cut"
        write_tar(folder / f"{shard:06d}.tar", contents)
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


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_the_key_chooses_one_of_several_files_in_a_tar(raw, tmp_path, capsys, suffix):
    contents: dict[str, bytes] = {}
    for number, name in enumerate(IDS):
        rows = {"clip": feature(number), "text": np.ones((2, 512), np.float16)}
        for key in ("clip", "text"):
            content = npy(rows[key]) if suffix == ".npy" else npz(anything=rows[key])
            contents[f"{name}.{key}{suffix}"] = content
    path = write_tar(tmp_path / "all.tar", contents)
    assert main(arguments(raw, source=path)) == 2
    problem = "must hold one array, but holds clip, text; name one with --key"
    assert f"(video0: {problem};" in capsys.readouterr().err
    assert main(arguments(raw, "--key", "s3d", source=path)) == 2
    assert "must hold an array `s3d`, but holds clip, text" in capsys.readouterr().err
    assert main(arguments(raw, "--key", "clip", source=path)) == 0
    assert_packed(tmp_path)


def test_a_video_without_the_array_of_the_key_is_left_out(raw, tmp_path):
    contents = {
        f"{name}.clip.npy": npy(feature(number)) for number, name in enumerate(IDS)
    }
    contents["video1.text.npy"] = contents.pop("video1.clip.npy")
    path = write_tar(tmp_path / "all.tar", contents)
    assert main(arguments(raw, "--key", "clip", source=path)) == 0
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    problem = "must hold an array `clip`, but holds text; name one with --key"
    assert skipped == {"video1": problem}


def test_the_key_may_be_in_files_with_a_name(tmp_path):
    content = npz(clip=feature(0), times=np.zeros(3))
    path = write_tar(tmp_path / "all.tar", {"video0.all.npz": content})
    place = find_places(path, ["video0"], "clip")["video0"]
    np.testing.assert_array_equal(read_array(place, "clip"), feature(0))


def test_ids_in_a_tar_may_have_dots(tmp_path):
    """A file with the name of the id is used, not another one that only begins with it."""
    names = ["tea.v2.npy", "tea.npy", "tea.v3.npy", "cup.v1.npy"]
    path = write_tar(tmp_path / "all.tar", dict.fromkeys(names, npy(feature(0))))
    for ids in (["tea", "tea.v2", "cup"], ["tea"]):
        places = find_places(path, ids)
        found = {video_id: place.entry for video_id, place in places.items()}
        expected = {"tea": "tea.npy", "tea.v2": "tea.v2.npy", "cup": "cup.v1.npy"}
        assert found == {video_id: expected[video_id] for video_id in ids}


def test_a_name_with_and_without_a_video_suffix_is_an_error(raw, capsys):
    second = raw / "video3.npy"
    for name in ("video3.mp4.npy", "video3.mp4.npz"):
        path = raw / name
        path.write_bytes(npy(feature(3)))
        assert main(arguments(raw)) == 2
        assert capsys.readouterr().err == (
            f"error: {second}: a video must have one feature file, but `video3` also has {path}. "
            "Remove one of them.\n"
        )
        path.unlink()


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
