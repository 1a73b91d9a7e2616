"""Tests of the check of a data set: its numbers equal simple loops, and it finds all damage."""

import json
import shutil
from itertools import chain
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli.check import main
from mmpt.config import load_config
from mmpt.prepare.check.dataset_check import DatasetReport, check_dataset
from mmpt.shards.shardedtensor import ShardedTensor, read_shard_meta
from tests.support.jobs import NORTON, corpus_overrides

Q = "demo.bert-demo.train"


def check(folder: Path, *more: str) -> int:
    overrides = corpus_overrides(folder, folder / "run")
    return main([NORTON, *overrides, "--out", str(folder / "check"), *more])


def found(folder: Path, key: str = "damage"):
    path = folder / "check/statistics.json"
    return json.loads(path.read_text())[key]


def change(folder: Path, stem: str, part: str, edit) -> None:
    """Replaces an array of the corpus by the result of `edit`."""
    path = folder / "feat" / f"{stem}_{part}.npy"
    array = np.load(path)
    np.save(path, edit(array))


# ---- the numbers


@pytest.fixture(scope="session")
def report(corpus: Path) -> DatasetReport:
    """Returns the report of the corpus, which is not damaged."""
    config = load_config(NORTON, corpus_overrides(corpus, corpus / "run"))
    report = check_dataset(config)
    assert report.damage == []
    return report


def read_arrays(corpus: Path, split: Split, stem: str) -> np.ndarray:
    """Returns the concatenated arrays of all shards of a split.

    Args:
        stem: name of the arrays, with `{}` for the name of the shard.
    """
    arrays = []
    for shard in read_shard_meta(corpus / "feat", split):
        name = stem.format(f"{split.shard_name}_{shard}")
        arrays.append(np.load(corpus / "feat" / name))
    return np.concatenate(arrays)


def test_several_workers_give_the_same_report(corpus, report):
    config = load_config(NORTON, corpus_overrides(corpus, corpus / "run"))
    assert check_dataset(config, workers=4).to_dict() == report.to_dict()


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALID])
def test_statistics_of_features_equal_a_simple_version(corpus, report, split):
    statistics = report.splits[split.shard_name]
    features = read_arrays(corpus, split, "{}_data.npy")
    norms = np.linalg.norm(features.astype(float), axis=1)
    tally = statistics.tallies["norm of a feature row"]
    assert statistics.seconds == len(norms)
    assert tally.count == len(norms)
    # Measured 2e-7.
    assert tally.mean == pytest.approx(norms.mean(), abs=1e-5)


def test_the_rate_of_the_features_is_taken_into_account(corpus, report):
    overrides = corpus_overrides(corpus, corpus / "run")
    config = load_config(NORTON, [*overrides, "dataset.feature_fps=2"])
    faster = check_dataset(config)
    plain = report.splits["train"]
    half = faster.splits["train"]
    assert half.feature_rows == plain.feature_rows
    assert half.seconds == plain.seconds / 2
    causes = {finding.cause for finding in faster.findings()}
    assert any(
        "times as far apart as `dataset.feature_fps`" in cause for cause in causes
    )


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALID])
def test_statistics_of_captions_equal_simple_loops(corpus, report, split):
    statistics = report.splits[split.shard_name]
    raw = json.loads((corpus / "captions.json").read_text())
    shards = read_shard_meta(corpus / "feat", split)
    num_captions = 0
    spoken_s = 0.0
    ids = list(chain.from_iterable(shards.values()))
    for video_id in ids:
        captions = raw[video_id]
        num_captions += len(captions["text"])
        spoken_s += sum(captions["end"]) - sum(captions["start"])
    assert statistics.videos == len(ids)
    assert statistics.listed == len(ids)
    assert statistics.captions == num_captions
    # Measured 1e-5, because shards have float32.
    assert statistics.spoken_s == pytest.approx(spoken_s, abs=1e-2)
    # The captions of the demo do not overlap.
    assert statistics.covered_s == pytest.approx(spoken_s, abs=1e-2)


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALID])
def test_statistics_of_word_pieces_equal_a_simple_version(corpus, report, split):
    statistics = report.splits[split.shard_name]
    ids = read_arrays(corpus, split, "demo.bert-demo.{}.caps_ids_data.npy")
    pieces = (ids >= 0).sum(axis=1)
    tally = statistics.tallies["word pieces of a caption"]
    counts, _ = np.histogram(pieces, tally.edges)
    assert statistics.pieces == pieces.sum()
    assert tally.counts.tolist() == counts.tolist()
    assert tally.low == pieces.min()
    assert tally.high == pieces.max()


@pytest.mark.slow
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


# ---- damage


def put(rows, column, value):
    def edit(array):
        array[rows, column] = value
        return array

    return edit


@pytest.mark.parametrize(
    ("stem", "part", "edit", "row", "what"),
    [
        (
            "train_0",
            "data",
            put([3, 4], 7, np.nan),
            0,
            "2 feature rows with NaN or infinity",
        ),
        (
            "train_1",
            "data",
            put([-1], 7, np.inf),
            11,
            "1 feature rows with NaN or infinity",
        ),
        (
            f"{Q}_0.startends",
            "data",
            put([0], 0, np.nan),
            0,
            "1 caption times that are NaN",
        ),
        (
            f"{Q}_1.caps_ids",
            "data",
            put([-1], 0, -7),
            11,
            "1 captions with ids below -1",
        ),
        (
            f"{Q}_0.caps_ids",
            "data",
            put([0, 1], 0, 9999),
            0,
            "2 captions with ids that the vo",
        ),
        (
            "train_0",
            "data",
            lambda rows: rows[:, :100],
            None,
            "floats of shape [rows, 512]",
        ),
        ("train_0", "data", lambda rows: rows[:-5], None, "starts and data disagree"),
        (
            "train_1",
            "starts",
            lambda starts: starts[:-1],
            None,
            "starts and data disagree",
        ),
        (
            f"{Q}_0.caps_ids",
            "starts",
            lambda s: np.append(s, s[-1]),
            None,
            "one row per video",
        ),
        (
            f"{Q}_0.startends",
            "data",
            lambda rows: rows.astype(int),
            None,
            "must hold floats",
        ),
    ],
)
def test_damage_is_reported_with_its_file_and_video(
    copy, capsys, stem, part, edit, row, what
):
    change(copy, stem, part, edit)
    assert check(copy) == 2
    (damage,) = found(copy)
    shard = 1 if "_1" in stem else 0
    ids = read_shard_meta(copy / "feat", Split.TRAIN)[shard]
    assert damage["video"] == ("" if row is None else ids[row])
    assert stem in damage["file"]
    assert what in damage["what"]
    assert "error: " in capsys.readouterr().err


def test_all_damage_is_reported_at_once(copy, capsys):
    (copy / "feat/train_0_data.npy").unlink()
    (copy / f"feat/{Q}_1.startends_starts.npy").write_bytes(b"x")
    shutil.rmtree(copy / "bert")
    change(copy, "val_0", "data", put([0], 0, np.nan))
    meta_path = copy / "feat/val_meta.json"
    meta = json.loads(meta_path.read_text())
    ids = meta["shards"][0]
    ids[1] = ids[0]
    meta_path.write_text(json.dumps(meta))
    assert check(copy) == 2
    damage = found(copy)
    text = "\n".join(f"{one['file']} {one['what']}" for one in damage)
    assert "/bert" in text
    assert "train_0_data.npy" in text
    assert "not a complete .npy file" in text
    assert "NaN" in text
    assert "is packed twice" in text
    assert "are not packed" in text
    assert capsys.readouterr().err.count("\n  - ") == len(damage)


def test_missing_data_are_reported_without_waiting_for_the_hub(
    copy, capsys, monkeypatch
):
    """huggingface_hub repeats requests for 46 seconds in all, and logs `Retrying`."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    shutil.rmtree(copy / "feat")
    (copy / "how2_s3d_train.lst").unlink()
    assert check(copy, "dataset.bert_name=no-such/bert") == 2
    message = capsys.readouterr().err
    assert "`no-such/bert`" in message
    assert "Hugging Face hub did not return it" in message
    assert "how2_s3d_train.lst: no such file" in message
    assert message.count("meta.pkl is there") == 2
    assert "Retrying" not in message


def test_captions_with_wrong_times_are_counted_but_not_reported_as_damage(copy):
    times = [(-2.0, 1.0), (9.0, 8.0), (1e6, 1e6 + 3)]
    change(copy, f"{Q}_0.startends", "data", put([0, 1, 2], slice(None), times))
    assert check(copy) == 0
    train = found(copy, "splits")["train"]
    assert train["negative"] == 1
    assert train["reversed"] == 1
    assert train["late"] == 1
    assert train["unordered"] == 1  # the caption after the one that begins at 1e6


def test_a_video_without_captions_is_counted(copy):
    for part in ("startends", "caps_ids"):
        stem = copy / f"feat/{Q}_1.{part}"
        tensor = ShardedTensor.load(stem)
        rows = [tensor[row] for row in range(len(tensor))]
        rows[0] = rows[0][:0]
        ShardedTensor.from_list(rows).save(stem)
    assert check(copy) == 0
    assert found(copy, "splits")["train"]["without_captions"] == 1


def test_ids_that_are_repeated_or_in_both_lists_are_counted(copy):
    train_list = copy / "how2_s3d_train.lst"
    train_ids = train_list.read_text().split()
    val_ids = (copy / "how2_s3d_val.lst").read_text().split()
    listed = [*train_ids, train_ids[0], val_ids[0]]
    train_list.write_text("\n".join(listed))
    assert check(copy, "dataset.max_missing=0.1") == 0
    train = found(copy, "splits")["train"]
    assert train["repeated"] == 1
    assert train["in_both"] == 1
    assert train["not_packed"] == 1


def test_fewer_videos_than_a_batch_are_reported_as_damage(copy):
    assert check(copy, "dataset.num_video_per_batch=9", "num_cands=9") == 2
    assert "only 8 videos have features and captions" in found(copy)[0]["what"]


@pytest.mark.parametrize(
    ("yaml", "more", "message"),
    [
        ("no.yaml", [], "no such file"),
        (NORTON, ["--workers", "0"], "--workers"),
        (
            "projects/retri/norton/test_how2_demo_zs.yaml",
            [],
            "must be a training config",
        ),
        (NORTON, ["--out", "/dev/null/here"], "/dev/null"),
    ],
)
def test_mistakes_are_reported(corpus, tmp_path, capsys, yaml, more, message):
    overrides = corpus_overrides(corpus, tmp_path) if yaml == NORTON else []
    assert main([yaml, *overrides, *more]) == 2
    assert message in capsys.readouterr().err
