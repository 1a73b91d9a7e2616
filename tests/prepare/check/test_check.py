"""The check of a data set: its numbers equal naive loops, and every damage made here is found with
file and video.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli import check as command
from mmpt.cli.check import main
from mmpt.config import load_config
from mmpt.prepare.check.dataset_check import check_dataset
from mmpt.prepare.check.statistics import Tally, caption_seconds
from mmpt.processors.tokenizer import special_tokens
from mmpt.shards.layout import read_shard_meta
from mmpt.shards.shardedtensor import ShardedTensor, open_shard
from tests.jobs import NORTON, corpus_overrides

Q = "demo.bert-demo.train"


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    """A corpus of one's own: 32 training videos in shards of 20 and 12, 8 validation videos."""
    shutil.copytree(corpus, tmp_path / "demo")
    open_shard.cache_clear()
    return tmp_path / "demo"


@pytest.fixture
def no_figure(monkeypatch):
    """Drawing takes most of a check's time on so small a corpus."""
    monkeypatch.setattr(command, "save_histograms", lambda path, splits: None)


def check(folder: Path, *more: str) -> int:
    return main(
        [NORTON, *corpus_overrides(folder, folder / "run"), "--out", str(folder / "check"), *more]
    )


def found(folder: Path) -> list[dict[str, str]]:
    return json.loads((folder / "check/statistics.json").read_text())["damage"]


def change(folder: Path, stem: str, part: str, edit) -> None:
    """Replace an array of the corpus by what `edit` makes of it."""
    path = folder / "feat" / f"{stem}_{part}.npy"
    array = np.load(path)
    np.save(path, edit(array))


# ---- the numbers


def test_tallies_merge_to_the_tally_of_all():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 4, 1000)
    edges = np.linspace(0, 6, 7)
    whole, one, other = Tally(edges), Tally(edges), Tally(edges)
    whole.add(values)
    one.add(values[:300])
    other.add(values[300:])
    one.merge(other)
    assert one.counts.tolist() == whole.counts.tolist()
    assert whole.counts.sum() == whole.count == 1000
    # Values below the first edge count in the first bin.
    assert whole.counts[0] == (values < 1).sum()
    assert whole.counts[-1] == (values >= 5).sum()
    assert (one.low, one.high) == (values.min(), values.max())
    assert one.mean == pytest.approx(values.mean(), abs=1e-12)


def naive_seconds(starts, ends, length):
    """Sums and unions on a grid of hundredths of a second."""
    grid = np.zeros(round(length * 100), dtype=int)
    for start, end in zip(starts, ends, strict=True):
        grid[max(0, round(start * 100)) : max(0, round(end * 100))] += 1
    return grid.sum() / 100, (grid > 0).sum() / 100


def test_caption_seconds_equal_a_grid_of_hundredths():
    rng = np.random.default_rng(1)
    seconds = np.array([30, 0, 12, 50, 7])
    counts = [12, 3, 0, 40, 5]
    owners = np.repeat(np.arange(5), counts)
    starts = np.round(rng.uniform(-5, 55, len(owners)), 2)
    ends = np.round(starts + rng.uniform(-1, 8, len(owners)), 2)
    spoken, covered = caption_seconds(starts, ends, owners, seconds)
    for video in range(5):
        mine = owners == video
        wanted = naive_seconds(starts[mine], np.maximum(ends, starts)[mine], seconds[video])
        # Measured 2e-13.
        np.testing.assert_allclose((spoken[video], covered[video]), wanted, atol=1e-9)


def test_the_report_equals_naive_loops(corpus):
    report = check_dataset(load_config(NORTON, corpus_overrides(corpus, corpus / "run")))
    assert report.damage == []
    raw = json.loads((corpus / "captions.json").read_text())
    for split in (Split.TRAIN, Split.VALID):
        statistics = report.splits[split.shard_name]
        shards = read_shard_meta(corpus / "feat", split)
        features = [
            np.load(f"{corpus}/feat/{split.shard_name}_{k}_data.npy").astype(np.float64)
            for k in shards
        ]
        norms = np.concatenate([np.linalg.norm(rows, axis=1) for rows in features])
        captions = [raw[name] for ids in shards.values() for name in ids]
        durations = np.concatenate([np.subtract(one["end"], one["start"]) for one in captions])
        assert statistics.videos == statistics.listed == len(captions)
        assert (
            statistics.seconds == len(norms) == statistics.tallies["length of a feature row"].count
        )
        assert statistics.captions == sum(len(one["text"]) for one in captions)
        # float32 of the shards: measured 2e-7 and 1e-5
        assert statistics.tallies["length of a feature row"].mean == pytest.approx(
            norms.mean(), abs=1e-5
        )
        assert statistics.spoken_s == pytest.approx(durations.sum(), abs=1e-2)
        # The demo's captions lie apart.
        assert statistics.covered_s == pytest.approx(durations.sum(), abs=1e-2)
        stem = f"{corpus}/feat/demo.bert-demo.{split.shard_name}"
        ids = [np.load(f"{stem}_{shard}.caps_ids_data.npy") for shard in shards]
        assert statistics.pieces == sum((rows >= 0).sum() for rows in ids)


def test_workers_and_order_change_nothing(corpus):
    config = load_config(NORTON, corpus_overrides(corpus, corpus / "run"))
    one, four = check_dataset(config), check_dataset(config, workers=4)
    assert one.to_dict() == four.to_dict()


def test_the_command_prints_a_table_and_draws(copy, capsys):
    assert check(copy) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["train", "val"]
    assert any(line.split() == ["videos", "32", "8"] for line in out.splitlines())
    assert (copy / "check/histograms.png").read_bytes().startswith(b"\x89PNG")
    assert found(copy) == []


@pytest.mark.usefixtures("no_figure")
def test_a_sample_of_the_shards(copy, capsys):
    assert check(copy, "--max-shards", "1") == 0
    rows = {line[:30].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["shards read"][2:] == ["1", "of", "2", "1", "of", "1"]
    assert rows["videos"] == ["videos", "20", "8"]


# ---- what is damaged


def put(rows, column, value):
    def edit(array):
        array = array.copy()
        array[rows, column] = value
        return array

    return edit


@pytest.mark.usefixtures("no_figure")
@pytest.mark.parametrize(
    ("stem", "part", "edit", "row", "what"),
    [
        ("train_0", "data", put([3, 4], 7, np.nan), 0, "2 seconds with NaN or infinity"),
        ("train_1", "data", put([-1], 7, np.inf), 11, "1 seconds with NaN or infinity"),
        (
            f"{Q}_0.startends",
            "data",
            put([0], 0, np.nan),
            0,
            "1 caption times that are NaN or infinite",
        ),
        (f"{Q}_1.caps_ids", "data", put([-1], 0, -7), 11, "1 captions with ids below -1"),
        (
            f"{Q}_0.caps_ids",
            "data",
            put([0, 1], 0, 9999),
            0,
            "2 captions with ids that the vocabulary",
        ),
        (
            "train_0",
            "data",
            lambda array: array[:, :100],
            None,
            "must hold floats of shape [seconds, 512]",
        ),
        ("train_0", "data", lambda array: array[:-5], None, "starts and data disagree"),
        ("train_1", "starts", lambda array: array[:-1], None, "starts and data disagree"),
        (
            f"{Q}_0.caps_ids",
            "starts",
            lambda array: np.append(array, array[-1]),
            None,
            "one row per video",
        ),
        (
            f"{Q}_0.startends",
            "data",
            lambda array: array.astype(int),
            None,
            "must hold floats of shape [captions, 2]",
        ),
    ],
)
def test_damage_is_found_with_file_and_video(copy, capsys, stem, part, edit, row, what):
    change(copy, stem, part, edit)
    assert check(copy) == 2
    (damage,) = found(copy)
    shard = int(stem.split("_")[1][0])
    assert damage["video"] == (
        "" if row is None else read_shard_meta(copy / "feat", Split.TRAIN)[shard][row]
    )
    assert stem in damage["file"]
    assert what in damage["what"]
    assert "error: " in capsys.readouterr().err


@pytest.mark.usefixtures("no_figure")
def test_all_damage_comes_in_one_list(copy, capsys):
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
        "/bert",
        "train_0_data.npy",
        "not a complete .npy file",
        "NaN",
        "is packed twice",
        "are not packed",
    ):
        assert part in whats
    assert capsys.readouterr().err.count("\n  - ") == len(found(copy))


def test_ids_of_the_vocabulary_are_all_known(corpus):
    """The last id is fine, the next is not: the bound is the tokenizer's size."""
    ids = np.load(corpus / f"feat/{Q}_0.caps_ids_data.npy")
    assert ids.max() < special_tokens(f"{corpus}/bert").vocab_size


@pytest.mark.usefixtures("no_figure")
def test_odd_captions_are_counted_but_no_damage(copy, capsys):
    def odd(array):
        array = array.copy()
        array[0] = (-2.0, 1.0)
        array[1] = (9.0, 8.0)
        array[2] = (1e6, 1e6 + 3)
        return array

    change(copy, f"{Q}_0.startends", "data", odd)
    with open(copy / "how2_s3d_train.lst", "a") as file:
        file.write((copy / "how2_s3d_train.lst").read_text().split()[0] + "\n")
        file.write((copy / "how2_s3d_val.lst").read_text().split()[0] + "\n")
    assert check(copy, "dataset.max_missing=0.1") == 0
    train = json.loads((copy / "check/statistics.json").read_text())["splits"]["train"]
    for name in ("negative", "reversed", "late", "repeated", "in_both", "not_packed"):
        assert train[name] == 1, name
    assert train["unordered"] == 1  # the one after the caption that begins at 1e6


@pytest.mark.usefixtures("no_figure")
def test_videos_without_captions_are_counted(copy):
    stems = [copy / f"feat/{Q}_1.{part}" for part in ("startends", "caps_ids")]
    for stem in stems:
        whole = ShardedTensor.load(stem)
        rows = [whole[0][:0], *(whole[row] for row in range(1, len(whole)))]
        ShardedTensor.from_list(rows).save(stem)
    assert check(copy) == 0
    train = json.loads((copy / "check/statistics.json").read_text())["splits"]["train"]
    assert train["without_captions"] == 1


@pytest.mark.usefixtures("no_figure")
def test_fewer_videos_than_a_batch(copy):
    assert check(copy, "dataset.num_video_per_batch=9", "num_cands=9") == 2
    assert "only 8 videos have features and captions" in found(copy)[0]["what"]


def test_mistakes_are_told(corpus, tmp_path, capsys):
    assert main([str(tmp_path / "no.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert check(corpus, "--workers", "0") == 2
    assert "--workers" in capsys.readouterr().err
    assert main(["projects/retri/norton/test_how2_demo_zs.yaml", "--out", str(tmp_path)]) == 2
    assert "must be a training config" in capsys.readouterr().err
    assert main([NORTON, *corpus_overrides(corpus, tmp_path), "--out", "/dev/null/here"]) == 2
    assert "/dev/null" in capsys.readouterr().err
