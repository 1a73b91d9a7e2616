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
from mmpt.shards.shardedtensor import (
    ShardedTensor,
    open_captions,
    open_shard,
    write_shard_meta,
)
from tests.support.paths import ROOT
from tests.support.tiny_bert import tiny_bert

WORDS = [
    "pan",
    "the",
    "oven,",
    "Café",
    "it's",
    "naïve-ish",
    "中文",
    "unknownword",
    "a" * 30,
]
CONFIG = "scripts/text_token_extractor/configs/bert-base-uncased.yaml"
TRAIN = [f"a/v.{n}" if n < 30 else f"v{n}" for n in range(50)]
IDS = {
    Split.TRAIN: [TRAIN[:30], TRAIN[30:]],
    Split.VALID: [["x", "y"]],
}


def random_captions(rng: random.Random) -> dict[str, list]:
    """Returns one to nine captions of random words."""
    num_captions = rng.randint(1, 9)
    start = sorted(round(rng.uniform(0, 80), 2) for _ in range(num_captions))
    end = [time + 5 for time in start]
    texts = []
    for _ in start:
        words = rng.choices(WORDS, k=rng.randint(0, 20))
        texts.append(" ".join(words))
    return {"start": start, "end": end, "text": texts}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Returns a folder with a BERT, three feature shards and captions.

    The captions are in another order than the videos, and one video has none.
    """
    rng = random.Random(1)
    tiny_bert(tmp_path / "bert")
    features = np.zeros((90, 512), dtype=np.float16)
    corpus = {}
    for split, shards in IDS.items():
        write_shard_meta(tmp_path / "feat", split, shards)
        for number, ids in enumerate(shards):
            stem = tmp_path / "feat" / f"{split.shard_name}_{number}"
            ShardedTensor.from_list([features] * len(ids)).save(stem)
            for video_id in ids:
                corpus[video_id] = random_captions(rng)
    corpus["v40"]["text"][0] = None
    corpus["v41"] = {"start": [], "end": [], "text": []}
    corpus["v42"] = {
        "start": [9.0, 2.0],
        "end": [12.0, 4.0],
        "text": ["the pan", "heat"],
    }
    del corpus["a/v.3"]
    names = list(corpus)
    rng.shuffle(names)
    write_captions(tmp_path, {name: corpus[name] for name in names})
    return tmp_path


def read_corpus(place: Path) -> dict[str, dict]:
    path = place / "captions.json"
    return json.loads(path.read_text())


def write_captions(place: Path, corpus: dict[str, dict]) -> None:
    path = place / "captions.json"
    path.write_text(json.dumps(corpus))


def arguments(place: Path, *more: str) -> list[str]:
    return [
        CONFIG,
        f"dataset.bert_name={place}/bert",
        f"dataset.caption_pkl_path={place}/captions.pkl",
        f"dataset.target_dir={place}/feat",
        *more,
    ]


def run(place: Path, *more: str) -> int:
    open_shard.cache_clear()
    return tokenize.main(arguments(place, "--workers", "1", *more))


def files(place: Path) -> dict[str, bytes]:
    paths = sorted((place / "feat").glob("captions.bert.*"))
    return {path.name: path.read_bytes() for path in paths}


def test_videos_without_captions_are_reported(place):
    assert run(place) == 0
    report = json.loads((place / "feat" / "captions.bert.report.json").read_text())
    train = report["train"]
    assert train["videos"] == 50
    assert train["not_in_captions"] == ["a/v.3"]
    assert train["without_captions"] == ["v41"]
    assert train["fixed"] == {"unsorted": 1, "negative": 0, "reversed": 0, "untimed": 0}
    val = report["val"]
    assert val["not_in_captions"] == []
    assert val["without_captions"] == []


def test_every_video_has_a_row_with_its_captions(place):
    assert run(place) == 0
    corpus = read_corpus(place)
    corpus["a/v.3"] = {"start": []}  # the captions do not contain it
    for split, shards in IDS.items():
        for number, ids in enumerate(shards):
            times, pieces = open_captions(f"{place}/feat/captions.bert.", split, number)
            counts = [len(corpus[name]["start"]) for name in ids]
            assert times.lengths().tolist() == counts
            assert pieces.lengths().tolist() == counts


def test_captions_are_sorted_by_their_start(place):
    assert run(place) == 0
    times, pieces = open_captions(f"{place}/feat/captions.bert.", Split.TRAIN, 1)
    row = IDS[Split.TRAIN][1].index("v42")
    assert times[row].tolist() == [[2.0, 4.0], [9.0, 12.0]]
    tokenizer = load_tokenizer(str(place / "bert"))
    expected = caption_ids(tokenizer, ["heat", "the pan"])
    np.testing.assert_array_equal(pieces[row], expected)


def test_only_shards_with_changed_inputs_are_made_again(place):
    def inodes() -> dict[str, int]:
        paths = sorted((place / "feat").glob("*.caps_ids_starts.npy"))
        return {path.name: path.stat().st_ino for path in paths}

    def made_now() -> list[str]:
        """Runs the command. Returns the names of the shards that it writes."""
        before = inodes()
        assert run(place) == 0
        made = []
        for name, inode in inodes().items():
            if inode != before.get(name):
                made.append(name.split(".")[2])
        return made

    assert made_now() == ["train_0", "train_1", "val_0"]
    first = files(place)
    assert made_now() == []
    (place / "feat" / "captions.bert.val_0.startends_starts.npy").unlink()
    assert made_now() == ["val_0"]
    assert files(place) == first
    first_ids, second_ids = IDS[Split.TRAIN]
    write_shard_meta(place / "feat", Split.TRAIN, [first_ids, second_ids[::-1]])
    assert made_now() == ["train_1"]
    corpus = read_corpus(place)
    corpus["x"]["text"][0] = "heat"
    write_captions(place, corpus)
    assert len(made_now()) == 3
    vocabulary = place / "bert" / "vocab.txt"
    pieces = vocabulary.read_text().splitlines()
    pieces[-1] = "newpiece"
    vocabulary.write_text("\n".join(pieces) + "\n")
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
    killed = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    while len(list((place / "feat").glob(".captions.bert.*.tmp"))) < 4:
        assert killed.poll() is None
        time.sleep(0.01)
    children = (
        Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    )
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
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("seed", range(20))
def test_batched_captions_get_the_ids_of_single_captions(tmp_path, seed):
    rng = random.Random(seed)
    alphabet = (
        "abcABC  \t\n\x00\x1c\x1f\x85\u00a0\u2028\u0301éÉ"
        "中文İßΣς'-.,![]##\U0001f355\ufffd\u200b"
    )
    pieces = [*alphabet, " [SEP] ", "[MASK]", "the", "pan ", "\ud800"]
    tokenizer = load_tokenizer(tiny_bert(tmp_path))
    texts = []
    for _ in range(100):
        chosen = rng.choices(pieces, k=rng.randint(0, 60))
        texts.append("".join(chosen))
    found = caption_ids(tokenizer, texts)
    assert found.dtype == np.int32
    for row, text in zip(found, texts, strict=True):
        valid = text[:96].encode("utf-8", "replace").decode()
        alone = tokenizer(valid, add_special_tokens=False)["input_ids"]
        assert row[row != -1].tolist() == alone[:32]


def test_values_that_are_not_texts_get_no_ids(tmp_path):
    tokenizer = load_tokenizer(tiny_bert(tmp_path))
    found = caption_ids(tokenizer, [float("nan"), None, ""])
    assert found.shape == (3, 32)
    assert (found == -1).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["dataset.caption_pkl_path=gone.pkl"],
            "gone.pkl: no such file, nor gone.jsonl or gone.json or gone.pkl",
        ),
        (
            ["dataset.target_dir=gone"],
            "neither train_meta.json nor train_meta.pkl is there",
        ),
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
