"""Tests of the command that tokenises captions: shards, report, interruptions and mistakes."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli import tokenize
from mmpt.prepare.captions.pretokenise import caption_ids
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.layout import open_captions, write_shard_meta
from mmpt.shards.shardedtensor import ShardedTensor, open_shard
from tests.support.paths import ROOT
from tests.support.tiny_bert import tiny_bert

WORDS = ["pan", "the", "oven,", "Café", "it's", "naïve-ish", "中文", "unknownword", "a" * 30]
CONFIG = "scripts/text_token_extractor/configs/bert-base-uncased.yaml"
IDS = {
    Split.TRAIN: [[f"a/v.{n}" for n in range(30)], [f"v{n}" for n in range(30, 50)]],
    Split.VALID: [["x", "y"]],
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Returns a folder with a BERT, three feature shards and captions.

    The captions are in another order than the videos, and one video has none.
    """
    rng = random.Random(1)
    tiny_bert(tmp_path / "bert")
    corpus = {}
    for split, shards in IDS.items():
        write_shard_meta(tmp_path / "feat", split, shards)
        for number, ids in enumerate(shards):
            features = [np.zeros((90, 512), dtype=np.float16) for _ in ids]
            stem = tmp_path / "feat" / f"{split.shard_name}_{number}"
            ShardedTensor.from_list(features).save(stem)
            for video_id in ids:
                start = sorted(round(rng.uniform(0, 80), 2) for _ in range(rng.randint(1, 9)))
                text = [" ".join(rng.choices(WORDS, k=rng.randint(0, 20))) for _ in start]
                end = [time + 5 for time in start]
                corpus[video_id] = {"start": start, "end": end, "text": text}
    corpus["v40"]["text"][0] = None
    corpus["v41"] = {"start": [], "end": [], "text": []}
    corpus["v42"] = {"start": [9.0, 2.0], "end": [12.0, 4.0], "text": ["the pan", "heat"]}
    del corpus["a/v.3"]
    names = list(corpus)
    rng.shuffle(names)
    (tmp_path / "captions.json").write_text(json.dumps({name: corpus[name] for name in names}))
    return tmp_path


def arguments(place: Path, *more: str) -> list[str]:
    keys = {"bert_name": "bert", "caption_pkl_path": "captions.pkl", "target_dir": "feat"}
    return [CONFIG, *(f"dataset.{key}={place / name}" for key, name in keys.items()), *more]


def run(place: Path, *more: str) -> int:
    open_shard.cache_clear()
    return tokenize.main(arguments(place, "--workers", "1", *more))


def files(place: Path) -> dict[str, bytes]:
    paths = sorted((place / "feat").glob("captions.bert.*"))
    return {path.name: path.read_bytes() for path in paths}


def test_videos_without_captions_have_empty_rows_and_are_reported(place):
    assert run(place) == 0
    report = json.loads((place / "feat" / "captions.bert.report.json").read_text())
    assert report["train"]["videos"] == 50
    assert report["train"]["not_in_captions"] == ["a/v.3"]
    assert report["train"]["without_captions"] == ["v41"]
    assert report["train"]["fixed"] == {"unsorted": 1, "negative": 0, "reversed": 0, "untimed": 0}
    assert report["val"]["not_in_captions"] == report["val"]["without_captions"] == []
    corpus = json.loads((place / "captions.json").read_text())
    prefix = f"{place}/feat/captions.bert."
    for split, shards in IDS.items():
        for number, ids in enumerate(shards):
            times, rows = open_captions(prefix, split, number)
            counts = [len(corpus.get(name, {"start": []})["start"]) for name in ids]
            assert times.lengths().tolist() == rows.lengths().tolist() == counts
    times, rows = open_captions(prefix, Split.TRAIN, 1)
    sorted_times, ids = times[42 - 30], rows[42 - 30]
    assert sorted_times.tolist() == [[2.0, 4.0], [9.0, 12.0]]
    tokenizer = load_tokenizer(str(place / "bert"))
    np.testing.assert_array_equal(ids, caption_ids(tokenizer, ["heat", "the pan"]))


def test_only_shards_with_changed_inputs_are_made_again(place):
    def made_now() -> list[str]:
        paths = sorted((place / "feat").glob("*.caps_ids_starts.npy"))
        before = {path: path.stat().st_ino for path in paths}
        assert run(place) == 0
        paths = sorted((place / "feat").glob("*.caps_ids_starts.npy"))
        new = [path.name for path in paths if before.get(path) != path.stat().st_ino]
        return [name.split(".")[2] for name in new]

    assert made_now() == ["train_0", "train_1", "val_0"]
    first = files(place)
    assert made_now() == []
    (place / "feat" / "captions.bert.val_0.startends_starts.npy").unlink()
    assert made_now() == ["val_0"]
    assert files(place) == first
    write_shard_meta(place / "feat", Split.TRAIN, [IDS[Split.TRAIN][0], IDS[Split.TRAIN][1][::-1]])
    assert made_now() == ["train_1"]
    corpus = json.loads((place / "captions.json").read_text())
    corpus["x"]["text"][0] = "heat"
    (place / "captions.json").write_text(json.dumps(corpus))
    assert len(made_now()) == 3
    vocabulary = place / "bert" / "vocab.txt"
    vocabulary.write_text("\n".join([*vocabulary.read_text().splitlines()[:-1], "newpiece"]) + "\n")
    load_tokenizer.cache_clear()
    assert len(made_now()) == 3


@pytest.mark.spawn
def test_worker_processes_end_when_their_parent_is_killed(place):
    slow = (
        "import sys, time\nfrom mmpt.prepare.captions import pretokenise\n"
        "from mmpt.cli.tokenize import main\n"
        "pretokenise.caption_ids = lambda *_: time.sleep(100)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", slow, *arguments(place, "--workers", "2")]
    killed = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    while len(list((place / "feat").glob(".captions.bert.*.tmp"))) < 4:
        assert killed.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    assert len(children) >= 2
    killed.kill()
    killed.wait()
    deadline = time.monotonic() + 60
    while any(_is_running(child) for child in children):
        assert time.monotonic() < deadline, "processes outlive the run"
        time.sleep(0.05)
    assert run(place, "--workers", "2") == 0
    assert not list((place / "feat").rglob(".*.tmp"))


def _is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("seed", range(20))
def test_captions_are_tokenised_in_batches_as_they_are_alone(tmp_path, seed):
    rng = random.Random(seed)
    alphabet = (
        "abcABC  \t\n\x00\x1c\x1f\x85\u00a0\u2028\u0301éÉ中文İßΣς'-.,![]##\U0001f355\ufffd\u200b"
    )
    pieces = [*alphabet, " [SEP] ", "[MASK]", "the", "pan ", "\ud800"]
    tokenizer = load_tokenizer(tiny_bert(tmp_path))
    texts = ["".join(rng.choices(pieces, k=rng.randint(0, 60))) for _ in range(100)]
    whole = [text[:96].encode("utf-8", "replace").decode() for text in texts]
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"][:32] for text in whole]
    found = caption_ids(tokenizer, texts)
    assert found.dtype == np.int32
    assert [[token for token in row if token != -1] for row in found.tolist()] == expected
    assert (caption_ids(tokenizer, [float("nan"), None, ""]) == -1).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["dataset.caption_pkl_path=gone.pkl"],
            "gone.pkl: no such file, nor gone.jsonl or gone.json or gone.pkl",
        ),
        (["dataset.target_dir=gone"], "neither train_meta.json nor train_meta.pkl is there"),
        (["dataset.bert_nam=x", "dataset.use_fast=3"], "Did you mean `bert_name`?"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_mistakes_give_one_message(place, capsys, more, message):
    assert run(place, *more) == 2
    assert message in capsys.readouterr().err


GOOD_LINE = b'{"id": "x", "start": [0], "end": [1], "text": ["a"]}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD_LINE + b'\n{"id": "x", "start": []}\n', "x is entry 1 and entry 2"),
        (
            GOOD_LINE.replace(b'"a"', b'"caf\xe9"'),
            "can't decode byte 0xe9 in position 51",
        ),
        (GOOD_LINE[:-1], "the line at byte 0 is not JSON"),
        (b'{"name": "x"}', "the line at byte 0 must be an object with an `id`"),
        (GOOD_LINE.replace(b"x", b"z"), "but none has (the first is x)"),
    ],
)
def test_damaged_captions_give_one_message(place, capsys, content, message):
    (place / "captions.jsonl").write_bytes(content)
    (place / "feat" / "train_meta.json").unlink()
    assert run(place, f"dataset.caption_pkl_path={place}/captions.jsonl") == 2
    assert message in capsys.readouterr().err
    assert not files(place)
