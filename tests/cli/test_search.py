"""`mmpt index` and `mmpt search`: results against brute force, continued runs, and mistakes."""

import io
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mmpt.batch import Captions, Split
from mmpt.cli import index, search
from mmpt.inference.embedding import embed_windows
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.shards.feature_info import FeatureInfo, write_feature_info
from mmpt.shards.writer import write_shards
from tests.support.tiny_run import make_run

LENGTHS = {"a": 20, "deep/b": 5, "c": 33}
TEXTS = ["cut the tomato", "mix é"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("search") / "run")


def rows_of(seconds: int) -> np.ndarray:
    rng = np.random.default_rng(seconds)
    return rng.standard_normal((seconds, 512)).astype(np.float16)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Features of three videos, one of them in a sub-folder."""
    for name, seconds in LENGTHS.items():
        path = tmp_path / "features" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rows_of(seconds))
    return tmp_path / "features"


def build(run: Path, out: Path, *arguments: object) -> int:
    options = ["--model", run, "--device", "cpu", *arguments]
    return index.main([str(out), *map(str, options)])


def expected(run: Path) -> list[list[tuple[str, int, int, float]]]:
    """All windows with their scores, best first, for each text."""
    model = MMPTModel.from_pretrained(run)
    found: list[list[tuple[str, int, int, float]]] = [[] for _ in TEXTS]
    for name, seconds in LENGTHS.items():
        features = model.video_features(rows_of(seconds))
        special = model.aligner.special
        for window in embed_windows(
            model.fusion, [features], special, length=12, stride=6
        ):
            scores = model.encode_text(TEXTS) @ window.pooled.detach()
            for text, score in enumerate(scores.tolist()):
                found[text].append((name, *window.span, score))
    return [sorted(each, key=lambda moment: -moment[3]) for each in found]


def found_by(capsys, out: Path, *arguments: object) -> list[dict]:
    assert search.main([str(out), *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_search_finds_the_best_windows(run, folder, tmp_path, capsys, caplog):
    out = tmp_path / "index"
    caplog.set_level("INFO")
    windows = ["--window", 12, "--stride", 6]
    assert build(run, out, "--features", folder, *windows) == 0
    assert "has 0 videos; 3 of 3 are new" in caplog.text
    assert "3 videos, 9 windows, type Flat" in caplog.text
    rows = found_by(capsys, out, *TEXTS, "--top", 4, "--max-overlap", 1)
    for text, row, moments in zip(TEXTS, rows, expected(run), strict=True):
        assert row["query"] == text
        for moment, best in zip(row["moments"], moments, strict=False):
            # Vectors are rounded to float16.
            assert moment["score"] == pytest.approx(best[3], abs=0.01)
        names = [(each["video"], each["start"], each["end"]) for each in row["moments"]]
        # The best window is certain only if the second score is clearly lower.
        assert moments[0][3] - moments[1][3] > 0.01
        assert names[0] == moments[0][:3]
        assert len(set(names)) == 4

    # Texts of a file or of standard input give the same.
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    again = found_by(
        capsys, out, "--queries", tmp_path / "texts.txt", "--top", 4, "--max-overlap", 1
    )
    assert again == rows
    assert search.main([str(out), TEXTS[0], "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == TEXTS[0]
    assert lines[1].split() == ["video", "time", "score"]
    first = rows[0]["moments"][0]
    span = f"0:{first['start']:02d}-0:{first['end']:02d}"
    assert lines[3].split() == [first["video"], span, f"{first['score']:.3f}"]
    assert len(lines) == 5


def test_standard_input(run, folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "index"
    assert build(run, out, "--features", folder) == 0
    expected_rows = found_by(capsys, out, *TEXTS)
    stdin = io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert found_by(capsys, out, "--queries", "-") == expected_rows


@pytest.mark.slow
def test_shards_and_features_give_the_same_index(run, folder, tmp_path, capsys):
    videos = []
    for name, seconds in LENGTHS.items():
        videos.append((name, rows_of(seconds), Captions(start=[], end=[], cap=[])))
    shards = tmp_path / "shards"
    write_shards(shards, shards / "cap.", Split.TRAIN, videos, 2)
    assert build(run, tmp_path / "x", "--shards", shards) == 0
    assert build(run, tmp_path / "y", "--features", folder) == 0
    for one, other in zip(
        found_by(capsys, tmp_path / "x", *TEXTS),
        found_by(capsys, tmp_path / "y", *TEXTS),
        strict=True,
    ):
        for moment, same in zip(one["moments"], other["moments"], strict=True):
            # The batches differ, and therefore also the rounding.
            assert moment.pop("score") == pytest.approx(same.pop("score"), abs=0.01)
            assert moment == same


def test_shards_of_another_rate_are_refused(run, tmp_path, capsys):
    shards = tmp_path / "shards"
    videos = [("one", rows_of(9), Captions(start=[], end=[], cap=[]))]
    write_shards(shards, shards / "cap.", Split.TRAIN, videos, 2)
    write_feature_info(shards, FeatureInfo(width=512, fps=2))
    assert build(run, tmp_path / "x", "--shards", shards) == 2
    error = capsys.readouterr().err
    assert "shards: must be 512-d features at 1 row per second" in error
    assert "but are 512-d features at 2 rows per second (features.json)" in error


def test_features_in_a_sub_folder_of_another_rate_are_refused(run, tmp_path, capsys):
    features = tmp_path / "features"
    (features / "deep").mkdir(parents=True)
    np.save(features / "deep" / "a.npy", rows_of(9))
    write_feature_info(features, FeatureInfo(width=512, fps=2))
    assert build(run, tmp_path / "x", "--features", features) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"{features}: must be 512-d features at 1 row per second" in error


@pytest.mark.slow
def test_only_new_videos_are_embedded(run, folder, tmp_path, capsys, caplog):
    out = tmp_path / "index"
    caplog.set_level("INFO")
    assert build(run, out, "--features", folder) == 0
    caplog.clear()
    np.save(folder / "d.npy", rows_of(40))
    (folder / "a.npy").write_bytes(b"not read again")
    (folder / "e.npy").write_bytes(b"broken")
    assert build(run, out, "--features", folder) == 2
    error = capsys.readouterr().err
    assert "e.npy" in error
    assert "--skip-broken" in error
    assert build(run, out, "--features", folder, "--skip-broken") == 0
    assert "has 3 videos; 2 of 5 are new" in caplog.text
    assert "1 of 2 files could not be read" in caplog.text
    (row,) = found_by(capsys, out, "cut", "--top", 100)
    assert {moment["video"] for moment in row["moments"]} == {*LENGTHS, "d"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "exactly one of `--videos`, `--features` and `--shards`"),
        ("--features {tmp}/features --shards {tmp}", "exactly one of"),
        (
            "--features {tmp}/none",
            "none: must be a folder with .npy files, but does not exist.",
        ),
        ("--shards {tmp}/features", "must be a folder of packed features"),
        ("--features {tmp}/features --window 17", "max_video_len` (16), but are 8 and"),
        ("--features {tmp}/features --type Foo", "could not parse index string Foo"),
        ("--features {tmp}/features --checkpoint x.pt", "x.pt"),
    ],
)
def test_mistakes_in_building_an_index_are_reported(
    run, folder, tmp_path, capsys, arguments, message
):
    out = tmp_path / "index"
    assert build(run, out, *arguments.format(tmp=tmp_path).split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("index", "give texts, or a file of texts with `--queries`"),
        ("index cut ''", "a text must have at least one word, but one is empty"),
        ("index '  '", "a text must have at least one word, but one is empty"),
        ("index cut --queries x.txt", "give texts, or a file of texts"),
        ("index --queries {tmp}/x.txt", "x.txt: no such file"),
        ("features cut", "must be a folder that `mmpt index` has made"),
        ("index cut --model {tmp}/none", "none"),
        ("index cut --device toaster", "--device toaster"),
        ("index cut --top 0", "--top"),
    ],
)
def test_mistakes_in_a_search_are_reported(
    run, folder, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert build(run, tmp_path / "index", "--features", folder) == 0
    capsys.readouterr()
    assert search.main(shlex.split(arguments.format(tmp=tmp_path))) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_an_index_can_be_searched_from_any_folder(
    folder, tmp_path, capsys, monkeypatch
):
    # As in the demo, the path of BERT is relative to the folder in which training was started.
    monkeypatch.chdir(tmp_path)
    run = make_run(Path("runs/demo"))
    Path("checkpoint_best.pt").touch()  # not the checkpoint of the run
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["dataset"]["bert_name"] == "runs/demo/bert"
    assert build(run, Path("index"), "--features", folder) == 0
    expected_rows = found_by(capsys, Path("index"), "cut")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert found_by(capsys, tmp_path / "index", "cut") == expected_rows

    # An older index does not store this folder.
    file = tmp_path / "index" / "index.json"
    settings = json.loads(file.read_text())
    assert settings.pop("bert") == str(tmp_path / "runs" / "demo" / "bert")
    file.write_text(json.dumps(settings))
    assert search.main([str(tmp_path / "index"), "cut"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "there is no folder runs/demo/bert. It is relative" in error
    assert (
        "Run the command in the folder in which the training run was started" in error
    )
    assert "download" not in error

    # The command that builds the index stores it.
    monkeypatch.chdir(tmp_path)
    assert build(run, Path("index"), "--features", folder) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert found_by(capsys, tmp_path / "index", "cut") == expected_rows
