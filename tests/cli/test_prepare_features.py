"""`mmpt prepare --features`: shards and a YAML from features that exist already."""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli import prepare
from mmpt.config import load_config
from mmpt.processors import ShardedHow2MetaProcessor, ShardedVideoProcessor
from mmpt.shards.feature_info import read_feature_info
from tests.support.feature_files import npy
from tests.support.own_data import (
    NAMES,
    VTT,
    all_ids,
    contents,
    ids_of,
    make_project,
    report_of,
    write_captions,
)

Run = Callable[..., int]


def rows_of(number: int) -> np.ndarray:
    """Returns six seconds of features like CLIP's: 768 numbers wide, two rows a second."""
    rows = np.random.default_rng(number).standard_normal((12, 768))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with features of eight videos, seven of which have captions."""
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    for number, name in enumerate(NAMES):
        np.save(tmp_path / "clip" / f"{name}.npy", rows_of(number))
    return tmp_path


@pytest.fixture
def run(corpus: Path, folder: Path) -> Run:
    """A function that runs the command. It takes the source and further options."""

    def run_it(source: str = "clip", *more: str) -> int:
        words = f"--features {source} --captions captions --bert-name {corpus}/bert"
        return prepare.main([*words.split(), *more])

    return run_it


@pytest.mark.slow
def test_the_yaml_and_the_shards_fit_the_features(folder: Path, run: Run) -> None:
    write_captions(folder, "nobody.vtt", VTT.format("leek"))
    assert run("clip", "--fps", "2", "--encoder", "CLIP-ViT-L-14") == 0
    config = load_config("projects/retri/mine/pretrain.yaml")
    assert (config.dataset.feature_dim, config.dataset.feature_fps) == (768, 2)
    assert not config.model.layernorm_only
    assert config.option("optimization", "lr") == [5e-5]
    assert config.dataset.num_video_per_batch == 2
    info = read_feature_info("data/mine/shards")
    assert info is not None
    assert (info.encoder, info.width, info.fps) == ("CLIP-ViT-L-14", 768, 2)
    found = []
    for split in (Split.TRAIN, Split.VALID):
        meta = ShardedHow2MetaProcessor(config.dataset, split)
        video = ShardedVideoProcessor(config.dataset, split)
        for index in range(len(meta)):
            key, _ = meta[index]
            found.append(key.video_id)
            rows = rows_of(NAMES.index(key.video_id)).astype(np.float16)
            np.testing.assert_array_equal(video(key), rows)
    assert sorted(found) == all_ids(folder) == NAMES[:7]
    report = report_of(folder)
    assert report["videos_without_captions"] == {NAMES[7]: "no caption file"}
    assert report["captions_without_video"] == ["captions/nobody.vtt"]
    assert not (folder / "data/mine/feat").exists()


def as_pickle(path: Path) -> None:
    rows = {name: rows_of(number) for number, name in enumerate(NAMES)}
    path.write_bytes(pickle.dumps(rows))


def as_hdf5(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for number, name in enumerate(NAMES):
            file[f"{name}/clip"] = rows_of(number)
            file[f"{name}/times"] = np.arange(3.0)


def as_tar(path: Path) -> None:
    """In a tar, an id may end at the first dot, but these ids have dots."""
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(NAMES):
            content = npy(rows_of(number))
            member = tarfile.TarInfo(f"{name}.npy")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write", "more"),
    [
        ("all.pkl", as_pickle, []),
        ("all.h5", as_hdf5, ["--key", "clip"]),
        ("all.tar", as_tar, []),
    ],
)
def test_features_may_be_in_one_file(
    folder: Path, run: Run, name: str, write: Callable[[Path], None], more: list[str]
) -> None:
    write(folder / name)
    assert run(name, "--fps", "2", *more) == 0
    assert all_ids(folder) == NAMES[:7]
    assert load_config("projects/retri/mine/pretrain.yaml").dataset.feature_dim == 768


@pytest.mark.slow
def test_videos_with_unusable_features_are_in_no_list(folder: Path, run: Run) -> None:
    rows = rows_of(1)
    rows[3, 5] = np.nan
    np.save(folder / "clip" / f"{NAMES[1]}.npy", rows)
    np.save(folder / "clip" / f"{NAMES[2]}.npy", rows_of(2)[None])
    assert run("clip", "--fps", "2") == 0
    unusable = report_of(folder)["videos_without_features"]
    assert list(unusable) == NAMES[1:3]
    assert unusable[NAMES[1]] == "holds NaN, infinity or values beyond float16"
    assert "but holds float32 of shape [1, 12, 768]" in unusable[NAMES[2]]
    assert all_ids(folder) == [NAMES[0], *NAMES[3:7]]
    for split in ("train", "val"):
        assert len(ids_of(folder, split)) >= 2
        assert Path(f"data/mine/shards/{split}_not_packed.json").read_text() == "{}\n"
    np.save(folder / "clip" / f"{NAMES[1]}.npy", rows_of(1))
    assert run("clip", "--fps", "2") == 0
    assert all_ids(folder) == [*NAMES[:2], *NAMES[3:7]]


@pytest.mark.slow
def test_a_second_run_changes_only_what_depends_on_changed_features(
    folder: Path, run: Run
) -> None:
    options = ["clip", "--fps", "2", "--shard-size", "3"]
    assert run(*options) == 0
    before = contents(folder / "data")
    assert run(*options) == 0
    assert contents(folder / "data") == before
    changed = ids_of(folder, "train")[1]
    np.save(folder / "clip" / f"{changed}.npy", rows_of(99))
    assert run(*options) == 0
    after = contents(folder / "data/mine/shards")
    different = {path.name for path in after if after[path] != before[path]}
    assert different == {"train_0_data.npy", "train_0.json", "check_0.json"}


@pytest.mark.slow
def test_features_as_wide_as_s3d_need_the_name_of_another_network(
    folder: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (folder / "clip").iterdir():
        np.save(path, np.load(path)[:, :512])
    options = ["clip", "--fps", "2", "--recipe", "videoclip"]
    assert run(*options) == 0
    assert "name it with `--encoder`, so that the first layer is trained" in caplog.text
    caplog.clear()
    assert run(*options, "--encoder", "CLIP-ViT-B-32") == 0
    assert "name it with" not in caplog.text
    config = load_config("projects/retri/mine/pretrain.yaml")
    assert not config.model.layernorm_only


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "exactly one of `--videos` and `--features` must be given, but neither"),
        ("--features clip --videos raw", "must be given, but both are."),
        ("--features clip --weights s3d.pth", "`--weights` is an option for videos"),
        ("--features clip --random-weights", "leave it out with `--features`"),
        ("--features clip --decoders 2", "`--decoders` is an option for videos"),
        ("--videos raw --key clip", "`--key` is an option for `--features`"),
        (
            "--videos raw --l2-normalize",
            "`--l2-normalize` is an option for `--features`",
        ),
        ("--features clip --encoder a --encoder b", "is given 2 times"),
        ("--features no/such", "no/such: does not exist"),
        ("--features clip --out clip/mine", "must be outside of clip"),
        (
            "--features captions",
            "an .h5 file must hold all videos, and be named itself",
        ),
    ],
)
def test_mistakes_are_reported_before_anything_is_packed(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert prepare.main([*words.split(), "--captions", "captions"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert not (folder / "data/mine/shards").exists()


def test_features_of_other_videos_are_reported(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (folder / "clip").iterdir():
        path.rename(path.with_name(f"{NAMES.index(path.stem)}.npy"))
    assert run("clip") == 2
    assert "but has 8 others (first: `0`, `1`, `2`" in capsys.readouterr().err
    assert len(report_of(folder)["captions_without_video"]) == 7


def test_an_error_gives_the_reason_if_all_features_are_unusable(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (folder / "clip").iterdir():
        np.save(path, np.load(path)[None])
    assert run("clip", "--fps", "2") == 2
    err = capsys.readouterr().err
    assert f"but none of 7 has ({NAMES[0]}: must hold floats of shape" in err
    assert len(report_of(folder)["videos_without_features"]) == 7
