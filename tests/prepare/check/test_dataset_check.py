"""Tests of the check of a data set: its numbers equal simple loops, and it finds all damage."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli.check import main
from mmpt.config import load_config
from mmpt.prepare.check.dataset_check import check_dataset
from mmpt.shards.layout import read_shard_meta
from mmpt.shards.shardedtensor import ShardedTensor
from tests.support.jobs import NORTON, corpus_overrides

Q = "demo.bert-demo.train"


def check(folder: Path, *more: str) -> int:
    overrides = corpus_overrides(folder, folder / "run")
    return main([NORTON, *overrides, "--out", str(folder / "check"), *more])


def found(folder: Path, key: str = "damage"):
    return json.loads((folder / "check/statistics.json").read_text())[key]


def change(folder: Path, stem: str, part: str, edit) -> None:
    """Replaces an array of the corpus by the result of `edit`."""
    path = folder / "feat" / f"{stem}_{part}.npy"
    np.save(path, edit(np.load(path)))


# ---- the numbers


def test_statistics_equal_those_of_simple_loops(corpus):
    config = load_config(NORTON, corpus_overrides(corpus, corpus / "run"))
    report = check_dataset(config)
    assert report.damage == []
    assert check_dataset(config, workers=4).to_dict() == report.to_dict()
    raw = json.loads((corpus / "captions.json").read_text())
    for split in (Split.TRAIN, Split.VALID):
        name = split.shard_name
        statistics = report.splits[name]
        shards = read_shard_meta(corpus / "feat", split)
        features = [np.load(f"{corpus}/feat/{name}_{k}_data.npy").astype(float) for k in shards]
        norms = np.linalg.norm(np.concatenate(features), axis=1)
        captions = [raw[video_id] for ids in shards.values() for video_id in ids]
        spoken_s = sum(np.subtract(one["end"], one["start"]).sum() for one in captions)
        tally = statistics.tallies["length of a feature row"]
        assert statistics.videos == statistics.listed == len(captions)
        assert statistics.seconds == len(norms) == tally.count
        assert statistics.captions == sum(len(one["text"]) for one in captions)
        # Measured 2e-7 and 1e-5, because shards have float32.
        assert tally.mean == pytest.approx(norms.mean(), abs=1e-5)
        assert statistics.spoken_s == pytest.approx(spoken_s, abs=1e-2)
        # The captions of the demo do not overlap.
        assert statistics.covered_s == pytest.approx(spoken_s, abs=1e-2)
        stem = f"{corpus}/feat/demo.bert-demo.{name}"
        ids = [np.load(f"{stem}_{shard}.caps_ids_data.npy") for shard in shards]
        pieces = (np.concatenate(ids) >= 0).sum(axis=1)
        tally = statistics.tallies["word pieces of a caption"]
        assert statistics.pieces == pieces.sum()
        assert tally.counts.tolist() == np.histogram(pieces, tally.edges)[0].tolist()
        assert (tally.low, tally.high) == (pieces.min(), pieces.max())


def test_the_command_prints_a_table_and_draws_histograms(copy, capsys, monkeypatch):
    monkeypatch.undo()
    assert check(copy) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["train", "val", "plausible"]
    assert ["videos", "32", "8"] in lines
    assert (copy / "check/histograms.png").read_bytes().startswith(b"\x89PNG")
    assert found(copy) == []


def test_max_shards_limits_the_shards_that_are_read(copy, capsys):
    assert check(copy, "--max-shards", "1") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["shards", "read", "1", "of", "2", "1", "of", "1"] in lines
    assert ["videos", "20", "8"] in lines


# ---- what is damaged


def put(rows, column, value):
    def edit(array):
        array[rows, column] = value
        return array

    return edit


@pytest.mark.parametrize(
    ("stem", "part", "edit", "row", "what"),
    [
        ("train_0", "data", put([3, 4], 7, np.nan), 0, "2 seconds with NaN or infinity"),
        ("train_1", "data", put([-1], 7, np.inf), 11, "1 seconds with NaN or infinity"),
        (f"{Q}_0.startends", "data", put([0], 0, np.nan), 0, "1 caption times that are NaN"),
        (f"{Q}_1.caps_ids", "data", put([-1], 0, -7), 11, "1 captions with ids below -1"),
        (f"{Q}_0.caps_ids", "data", put([0, 1], 0, 9999), 0, "2 captions with ids that the vo"),
        ("train_0", "data", lambda rows: rows[:, :100], None, "floats of shape [seconds, 512]"),
        ("train_0", "data", lambda rows: rows[:-5], None, "starts and data disagree"),
        ("train_1", "starts", lambda starts: starts[:-1], None, "starts and data disagree"),
        (f"{Q}_0.caps_ids", "starts", lambda s: np.append(s, s[-1]), None, "one row per video"),
        (f"{Q}_0.startends", "data", lambda rows: rows.astype(int), None, "must hold floats"),
    ],
)
def test_damage_is_reported_with_its_file_and_video(copy, capsys, stem, part, edit, row, what):
    change(copy, stem, part, edit)
    assert check(copy) == 2
    (damage,) = found(copy)
    ids = read_shard_meta(copy / "feat", Split.TRAIN)[int(stem.split("_")[1][0])]
    assert damage["video"] == ("" if row is None else ids[row])
    assert stem in damage["file"]
    assert what in damage["what"]
    assert "error: " in capsys.readouterr().err


def test_all_damage_is_reported_at_once(copy, capsys):
    (copy / "feat/train_0_data.npy").unlink()
    (copy / f"feat/{Q}_1.startends_starts.npy").write_bytes(b"x")
    shutil.rmtree(copy / "bert")
    change(copy, "val_0", "data", put([0], 0, np.nan))
    meta = json.loads((copy / "feat/val_meta.json").read_text())
    meta["shards"][0][1] = meta["shards"][0][0]
    (copy / "feat/val_meta.json").write_text(json.dumps(meta))
    assert check(copy) == 2
    whats = " | ".join(f"{one['file']} {one['what']}" for one in found(copy))
    for part in (
        *("/bert", "train_0_data.npy", "not a complete .npy file"),
        *("NaN", "is packed twice", "are not packed"),
    ):
        assert part in whats
    assert capsys.readouterr().err.count("\n  - ") == len(found(copy))


def test_captions_with_wrong_times_are_counted_but_are_not_damage(copy):
    def odd(array):
        array[:3] = [(-2.0, 1.0), (9.0, 8.0), (1e6, 1e6 + 3)]
        return array

    change(copy, f"{Q}_0.startends", "data", odd)
    for part in ("startends", "caps_ids"):
        stem = copy / f"feat/{Q}_1.{part}"
        whole = ShardedTensor.load(stem)
        rows = [whole[0][:0], *(whole[row] for row in range(1, len(whole)))]
        ShardedTensor.from_list(rows).save(stem)
    with open(copy / "how2_s3d_train.lst", "a") as file:
        file.write((copy / "how2_s3d_train.lst").read_text().split()[0] + "\n")
        file.write((copy / "how2_s3d_val.lst").read_text().split()[0] + "\n")
    assert check(copy, "dataset.max_missing=0.1") == 0
    train = found(copy, "splits")["train"]
    for name in ("negative", "reversed", "late", "repeated", "in_both", "not_packed"):
        assert train[name] == 1, name
    assert train["without_captions"] == 1
    assert train["unordered"] == 1  # the caption after the one that begins at 1e6


def test_fewer_videos_than_a_batch_are_damage(copy):
    assert check(copy, "dataset.num_video_per_batch=9", "num_cands=9") == 2
    assert "only 8 videos have features and captions" in found(copy)[0]["what"]


def test_mistakes_are_reported(corpus, tmp_path, capsys):
    training = [NORTON, *corpus_overrides(corpus, tmp_path)]
    for arguments, message in (
        ([str(tmp_path / "no.yaml")], "no such file"),
        ([*training, "--workers", "0"], "--workers"),
        (["projects/retri/norton/test_how2_demo_zs.yaml"], "must be a training config"),
        ([*training, "--out", "/dev/null/here"], "/dev/null"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
