"""Text shards made from raw captions equal the recorded files byte for byte."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.prepare.captions.pretokenise import tokenise_captions
from mmpt.shards.layout import write_shard_meta
from tests.tiny_bert import tiny_bert

GOLDEN = Path(__file__).parent / "golden"
RAW = json.loads((GOLDEN / "dedup.json").read_text())["raw"]
SHARDS = {Split.TRAIN: [["vidA", "vidB", "vidC"], ["vidD", "vidE"]], Split.VALID: [["vidF"]]}


def write_corpus(folder: Path, suffix: str) -> None:
    """Write the recorded raw captions as `cap.<suffix>`; the pickle is the released form."""
    if suffix == "json":
        (folder / "cap.json").write_text(json.dumps(RAW))
    elif suffix == "jsonl":
        (folder / "cap.jsonl").write_text(
            "".join(json.dumps({"id": name} | video) + "\n" for name, video in RAW.items())
        )
    else:
        (folder / "cap.pkl").write_bytes(
            pickle.dumps({name: json.dumps(video) for name, video in RAW.items()})
        )


def write_meta(target: Path, released: bool) -> None:
    for split, shards in SHARDS.items():
        if released:
            target.mkdir(exist_ok=True)
            content = pickle.dumps(dict(enumerate(shards)), pickle.HIGHEST_PROTOCOL)
            (target / f"{split.shard_name}_meta.pkl").write_bytes(content)
        else:
            write_shard_meta(target, split, shards)


@pytest.mark.parametrize("use_fast", [True, False])
@pytest.mark.parametrize(("suffix", "released"), [("json", False), ("jsonl", False), ("pkl", True)])
def test_shards_equal_the_recorded_ones(tmp_path, suffix, released, use_fast):
    bert = tmp_path / "tinybert"
    tiny_bert(bert)
    write_corpus(tmp_path, suffix)
    target = tmp_path / "shards"
    write_meta(target, released)
    prefix = tokenise_captions(tmp_path / "cap.pkl", target, f"{bert}/", use_fast=use_fast)
    assert prefix == f"{target}/cap.tinybert."
    with np.load(GOLDEN / "pretokenized.npz") as recorded:
        assert len(recorded.files) == 12
        for name in recorded.files:
            expected = io.BytesIO()
            np.save(expected, recorded[name])
            assert (target / f"{name}.npy").read_bytes() == expected.getvalue(), name
    written = {path.name for path in target.glob("*.npy")}
    assert written == {f"{name}.npy" for name in recorded.files}
