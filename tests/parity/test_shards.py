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
from mmpt.shards.layout import write_shard_meta
from mmpt.shards.shardedtensor import ShardedTensor
from tests.support.recorded import arrays, record
from tests.support.tiny_bert import tiny_bert

RECORDED = record("dedup")
RAW = RECORDED["raw"]
SHARDS = {Split.TRAIN: [["vidA", "vidB", "vidC"], ["vidD", "vidE"]], Split.VALID: [["vidF"]]}


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
    videos = {name: json.dumps(video) for name, video in RAW.items()}
    if suffix == "pkl":
        (folder / "cap.pkl").write_bytes(pickle.dumps(videos))
        (folder / "shards").mkdir()
        for split, shards in SHARDS.items():
            content = pickle.dumps(dict(enumerate(shards)), pickle.HIGHEST_PROTOCOL)
            (folder / f"shards/{split.shard_name}_meta.pkl").write_bytes(content)
        return
    lines = (json.dumps({"id": name} | video) + "\n" for name, video in RAW.items())
    text = json.dumps(RAW) if suffix == "json" else "".join(lines)
    (folder / f"cap.{suffix}").write_text(text)
    for split, shards in SHARDS.items():
        write_shard_meta(folder / "shards", split, shards)


@pytest.mark.parametrize("use_fast", [True, False])
@pytest.mark.parametrize("suffix", ["json", "jsonl", "pkl"])
def test_caption_shards(tmp_path, suffix, use_fast):
    bert, target = tiny_bert(tmp_path / "tinybert"), tmp_path / "shards"
    write_corpus(tmp_path, suffix)
    prefix = tokenise_captions(tmp_path / "cap.pkl", target, f"{bert}/", use_fast=use_fast)
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
    ids = record("pretokenized")["token_ids_use_fast_True"]
    for split, shards in SHARDS.items():
        read = ShardedTextProcessor(DatasetConfig(tfeat_dir=f"{tmp_path}/cap.tinybert."), split)
        for shard, names in enumerate(shards):
            for row, name in enumerate(names):
                found = read(ShardKey(name, row, shard, row))
                assert found["cap"] == [pieces[:32] for pieces in ids[name]]
                for field in ("start", "end"):
                    assert found[field] == np.array(RAW[name][field], np.float32).tolist()


def test_files_of_a_ragged_tensor_equal_the_recorded_ones_and_read_back(tmp_path):
    golden = arrays("sharded_tensor")
    shard = ShardedTensor.from_list([golden[f"item{i}"] for i in range(4)])
    assert shard.lengths().tolist() == golden["lengths"].tolist()
    shard.save(tmp_path / "train_0")
    for part in ("data", "starts"):
        name, array = f"train_0_{part}.npy", golden[part]
        file, content = record("sharded_tensor")[name], (tmp_path / name).read_bytes()
        header = file["npy_header"].encode("latin-1")
        assert len(content) == file["bytes"]
        assert content.startswith(header)
        assert content[len(header) : -array.nbytes].strip(b" ") == b"\n"
        assert content[-array.nbytes :] == array.tobytes()
    for mode in ("r", None):
        read = ShardedTensor.load(tmp_path / "train_0", mmap_mode=mode)
        assert len(read) == 4
        for i in range(4):
            np.testing.assert_array_equal(read[i], golden[f"item{i}"])
