"""Tests of packing: shards equal a simple concatenation, and unusable videos are reported."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli.pack import main
from mmpt.shards.shardedtensor import read_shard_meta
from mmpt.shards.writer import row_stream
from tests.support.feature_files import (
    IDS,
    LENGTHS,
    arguments,
    feature,
    naive_data,
    npy,
)
from tests.support.paths import GOLDEN

# ---- the bytes


def test_a_row_stream_writes_the_recorded_files(tmp_path):
    golden = np.load(GOLDEN / "sharded_tensor.npz")
    described = json.loads((GOLDEN / "sharded_tensor.json").read_text())
    with row_stream(f"{tmp_path}/train_0", 3, np.dtype(np.float16)) as stream:
        for item in ("item0", "item1", "item2", "item3"):
            stream.append(golden[item])
    for part in ("data", "starts"):
        path = tmp_path / f"train_0_{part}.npy"
        np.testing.assert_array_equal(np.load(path), golden[part])
        wanted = described[path.name]
        assert path.stat().st_size == wanted["bytes"]
        assert path.read_bytes().startswith(wanted["npy_header"].encode("latin-1"))


def test_default_arguments_pack_howto100m_as_a_simple_concatenation(
    raw, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/feat").mkdir(parents=True)
    (tmp_path / "data/how2").mkdir()
    raw.rename("data/feat/feat_how2_s3d")
    for split in ("train", "val"):
        (tmp_path / f"{split}.lst").rename(f"data/how2/how2_s3d_{split}.lst")
    assert main([]) == 0
    packed = tmp_path / "data/feat/feat_how2_s3d_shard_small"
    assert read_shard_meta(packed, Split.TRAIN) == {0: IDS[:7]}
    assert (packed / "train_0_data.npy").read_bytes() == naive_data(list(range(7)))
    ends = np.cumsum(LENGTHS[:7])
    starts = np.array([0, *ends], dtype=np.int64)
    assert (packed / "train_0_starts.npy").read_bytes() == npy(starts)
    assert main(["--shard-size", "3"]) == 0
    wanted = {"train_1": [3, 4, 5], "train_2": [6], "val_0": [7, 8]}
    for name, numbers in wanted.items():
        data = packed / f"{name}_data.npy"
        assert data.read_bytes() == naive_data(numbers)
    shards = read_shard_meta(packed, Split.TRAIN)
    assert shards == {0: IDS[:3], 1: IDS[3:6], 2: IDS[6:7]}
    assert read_shard_meta(packed, Split.VALID) == {0: IDS[7:]}
    assert json.loads((packed / "train_not_packed.json").read_text()) == {}


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f2", ">f4"])
def test_any_float_is_stored_as_float16(raw, tmp_path, dtype):
    np.save(raw / "video1.npy", feature(1).astype(dtype))
    np.save(raw / "video2.npy", np.asfortranarray(feature(2).astype(dtype)))
    assert main(arguments(raw)) == 0
    assert (tmp_path / "packed/train_0_data.npy").read_bytes() == naive_data([0, 1, 2])


def test_ids_may_have_slashes_and_dots(raw, tmp_path):
    (raw / "folder").mkdir()
    names = ["folder/video.v2", ".hidden", "a.b.c", "ünï côdé"]
    for number, name in enumerate(names):
        np.save(raw / f"{name}.npy", feature(number))
    (tmp_path / "train.lst").write_text("\n".join(["../val", *names, "/etc/passwd"]))
    assert main(arguments(raw, "--shard-size", 10)) == 0
    assert read_shard_meta(tmp_path / "packed", Split.TRAIN) == {0: names}
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    reason = "the id leads out of the feature folder"
    assert skipped == {"../val": reason, "/etc/passwd": reason}


def test_repeated_ids_get_one_row_and_lists_may_have_a_byte_order_mark(raw, tmp_path):
    content = "video0\nvideo1\n\nvideo0\n video1 \nvideo2\n"
    (tmp_path / "train.lst").write_text(content, encoding="utf-8-sig")
    assert main(arguments(raw)) == 0
    assert read_shard_meta(tmp_path / "packed", Split.TRAIN) == {0: IDS[:3]}


# ---- videos that cannot be packed


def spoil(raw: Path) -> list[str]:
    """Makes six files unusable. Returns a part of the reason for each file."""
    (raw / "video0.npy").unlink()
    whole = (raw / "video1.npy").read_bytes()
    (raw / "video1.npy").write_bytes(whole[:-1])
    np.save(raw / "video2.npy", np.zeros((3, 1024), np.float16))
    np.save(raw / "video3.npy", np.zeros((3, 512), np.int16))
    with_nan = feature(4).copy()
    with_nan[:, 77] = np.nan
    np.save(raw / "video4.npy", with_nan)
    np.save(raw / "video5.npy", np.zeros((0, 512), np.float16))
    return ["no such file", "not a complete", "[3, 1024]", "int16", "NaN", "[0, 512]"]


def spoil_otherwise(raw: Path) -> list[str]:
    """Makes six files unusable in other ways. Returns a part of the reason for each file."""
    np.save(raw / "video0.npy", np.array([["x"]], dtype=object), allow_pickle=True)
    np.save(raw / "video1.npy", np.full((2, 512), 1e6, np.float32))
    (raw / "video2.npy").unlink()
    (raw / "video2.npy").mkdir()
    (raw / "video3.npy").write_bytes(b"")
    (raw / "video4.npy").write_bytes(b"\x93NUMPY\x09\x00")
    # NumPy raises a TokenError for this header.
    (raw / "video5.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'shape': (1, 51\n")
    return [
        *("Object arrays", "beyond float16", "cannot be read"),
        *("No data left in file", "format version", "not a complete"),
    ]


@pytest.mark.parametrize("spoil", [spoil, spoil_otherwise])
def test_unusable_videos_are_reported_and_left_out(raw, tmp_path, caplog, spoil):
    parts = spoil(raw)
    with caplog.at_level("WARNING"):
        assert main(arguments(raw)) == 0
    assert "6 of 7 listed train videos (85.71%)" in caplog.text
    skipped = json.loads((tmp_path / "packed/train_not_packed.json").read_text())
    assert list(skipped) == IDS[:6]
    for part, reason in zip(parts, skipped.values(), strict=True):
        assert part in reason
    assert read_shard_meta(tmp_path / "packed", Split.TRAIN) == {
        0: [],
        1: [],
        2: ["video6"],
    }
    assert (tmp_path / "packed/train_2_data.npy").read_bytes() == naive_data([6])


def test_too_many_unusable_videos_are_an_error(raw, tmp_path, capsys):
    (raw / "video0.npy").unlink()
    assert main(arguments(raw, "--max-missing", "0.1")) == 2
    assert "1 of 7 listed train videos (14.29%)" in capsys.readouterr().err
    assert not (tmp_path / "packed/train_meta.json").exists()
    assert main(arguments(raw, "--max-missing", "0.2")) == 0
    (tmp_path / "train.lst").write_text("other1\nother2\n")
    assert main(arguments(raw)) == 2
    message = (
        f"{raw}: must have features of at least one of the 2 listed train videos (first `other1`), "
        "but has 8 entries, first `video1`, `video2`. Correct the list or the path."
    )
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--features", "/no/such"], "error: /no/such: does not exist"),
        (["--train-list", "/no/such.lst"], "error: /no/such.lst: no such file."),
        (
            ["--target", "/dev/null/packed"],
            "error: /dev/null/packed/.packing: cannot be written",
        ),
        (["--shard-size=0"], "--shard-size"),
        (["--workers=0"], "--workers"),
        (["--max-missing=1.5"], "--max-missing"),
    ],
)
def test_mistakes_are_reported(raw, capsys, more, message):
    assert main(arguments(raw, *more)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("splits", "made"),
    [
        ("val", {"val"}),
        ("train val", {"train", "val"}),
        ("val train", {"train", "val"}),
        ("x", set()),
    ],
)
def test_only_the_requested_splits_are_packed(raw, tmp_path, splits, made):
    code = main(arguments(raw, "--splits", *splits.split()))
    assert code == (0 if made else 2)
    packed = tmp_path / "packed"
    found = {
        path.name.removesuffix("_meta.json") for path in packed.glob("*_meta.json")
    }
    assert found == made
