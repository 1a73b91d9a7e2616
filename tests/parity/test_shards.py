"""De-duplicated captions, token ids and shard files against the recorded ones.

Files are compared byte for byte. Recorded shards must also be readable.
"""

import io
import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import ShardKey, Split
from mmpt.cli.dedup import main
from mmpt.config import DatasetConfig
from mmpt.prepare.captions.corpus import iter_corpus
from mmpt.prepare.captions.dedup import deduplicate
from mmpt.prepare.captions.pretokenise import tokenise_captions
from mmpt.processors.how2 import ShardedTextProcessor
from mmpt.shards.shardedtensor import ShardedTensor, write_shard_meta
from tests.support.recorded import arrays, record
from tests.support.tiny_bert import tiny_bert

RECORDED = record("dedup")
RAW = RECORDED["raw"]
SHARDS = {
    Split.TRAIN: [["vidA", "vidB", "vidC"], ["vidD", "vidE"]],
    Split.VALID: [["vidF"]],
}


@pytest.mark.parametrize("seed", range(4))
def test_dedup_of_all_videos_with_one_generator(tmp_path, seed):
    (tmp_path / "raw_caption.json").write_text(json.dumps(RAW))
    assert main(["--how2dir", str(tmp_path), "--seed", str(seed)]) == 0
    ours = dict(iter_corpus(tmp_path / "raw_caption_dedup.jsonl"))
    assert ours == RECORDED["dedup"][f"seed{seed}"]


@pytest.mark.parametrize("name", RECORDED["dedup_single_seed"])
def test_dedup_of_one_video_with_its_own_seed(name):
    for seed, expected in RECORDED["dedup_single_seed"][name].items():
        rng = random.Random(int(seed.removeprefix("seed")))
        assert deduplicate(RAW[name], rng.random) == expected


def write_corpus(folder: Path, suffix: str) -> None:
    """Writes the recorded raw captions as `cap.<suffix>`, and the meta files of their shards.

    With the suffix `pkl`, both have the released format.
    """
    captions = folder / f"cap.{suffix}"
    if suffix == "pkl":
        videos = {name: json.dumps(video) for name, video in RAW.items()}
        captions.write_bytes(pickle.dumps(videos))
        (folder / "shards").mkdir()
        for split, shards in SHARDS.items():
            meta = folder / f"shards/{split.shard_name}_meta.pkl"
            content = dict(enumerate(shards))
            meta.write_bytes(pickle.dumps(content, pickle.HIGHEST_PROTOCOL))
        return
    if suffix == "json":
        captions.write_text(json.dumps(RAW))
    else:
        lines = [json.dumps({"id": name} | video) for name, video in RAW.items()]
        captions.write_text("\n".join(lines) + "\n")
    for split, shards in SHARDS.items():
        write_shard_meta(folder / "shards", split, shards)


@pytest.mark.parametrize("use_fast", [True, False])
@pytest.mark.parametrize("suffix", ["json", "jsonl", "pkl"])
def test_caption_shards(tmp_path, suffix, use_fast):
    bert = tiny_bert(tmp_path / "tinybert")
    target = tmp_path / "shards"
    write_corpus(tmp_path, suffix)
    prefix = tokenise_captions(
        tmp_path / "cap.pkl", target, f"{bert}/", use_fast=use_fast
    )
    assert prefix == f"{target}/cap.tinybert."
    recorded = arrays("pretokenized")
    assert len(recorded) == 12
    assert {path.stem for path in target.glob("*.npy")} == set(recorded)
    for name, array in recorded.items():
        expected = io.BytesIO()
        np.save(expected, array)
        assert (target / f"{name}.npy").read_bytes() == expected.getvalue(), name


def test_recorded_caption_shards_read_back(tmp_path):
    for name, array in arrays("pretokenized").items():
        np.save(tmp_path / f"{name}.npy", array)
    config = DatasetConfig(tfeat_dir=f"{tmp_path}/cap.tinybert.")
    ids = record("pretokenized")["token_ids_use_fast_True"]
    for split, shards in SHARDS.items():
        read = ShardedTextProcessor(config, split)
        for shard, names in enumerate(shards):
            for row, name in enumerate(names):
                found = read(ShardKey(name, row, shard, row))
                assert found["cap"] == [pieces[:32] for pieces in ids[name]]
                np.testing.assert_array_equal(
                    found["start"], np.float32(RAW[name]["start"])
                )
                np.testing.assert_array_equal(
                    found["end"], np.float32(RAW[name]["end"])
                )


def test_files_of_a_ragged_tensor_equal_the_recorded_ones_and_read_back(tmp_path):
    golden = arrays("sharded_tensor")
    shard = ShardedTensor.from_list([golden[f"item{i}"] for i in range(4)])
    assert shard.lengths().tolist() == golden["lengths"].tolist()
    shard.save(tmp_path / "train_0")
    for part in ("data", "starts"):
        name = f"train_0_{part}.npy"
        recorded = record("sharded_tensor")[name]
        content = (tmp_path / name).read_bytes()
        assert len(content) == recorded["bytes"]

        # A file is a header, blanks up to a round size, a line break and the values.
        header = recorded["npy_header"].encode("latin-1")
        values = golden[part].tobytes()
        padding = content[len(header) : -len(values)]
        assert content.startswith(header)
        assert padding.strip(b" ") == b"\n"
        assert content.endswith(values)
    for mode in ("r", None):
        read = ShardedTensor.load(tmp_path / "train_0", mmap_mode=mode)
        assert len(read) == 4
        for i in range(4):
            np.testing.assert_array_equal(read[i], golden[f"item{i}"])
