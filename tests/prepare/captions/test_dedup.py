"""Tests of de-duplication against a simple version, and of the command that writes a corpus."""

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.cli.dedup import main
from mmpt.errors import DataError
from mmpt.prepare.captions.corpus import iter_corpus
from mmpt.prepare.captions.dedup import deduplicate
from tests.support.paths import ROOT

VIDEOS = {
    "a/b.c": {
        "start": [0.0, 2.0],
        "end": [3.0, 5.0],
        "text": ["take the pan", "the pan and heat it"],
    },
    "none": {"start": [], "end": [], "text": []},
    "café": {
        "start": [1.0, 2.0, 3.0],
        "end": [2.0, 3.0, 4.0],
        "text": ["naïve 中", float("nan"), "\ud83d half a pair"],
    },
}


def simple_version(captions: dict, rng: random.Random) -> list[tuple[float, float, str]]:
    """Follows the rules of the specification, and tries all lengths of the overlap."""
    kept: list[list] = []
    for s, e, t in zip(captions["start"], captions["end"], captions["text"], strict=True):
        if not isinstance(t, str) or not (t := t.replace("\n", " ").strip()):
            continue
        p = kept[-1][2] if kept else None
        k = next((k for k in range(1, len(t) + 1) if p and p.endswith(t[:k])), 0)
        if p is None:
            kept.append([s, e, t])
        elif p.endswith(t):
            kept[-1][1] = max(kept[-1][1], e)
        elif t.startswith(p):
            kept[-1] = [min(kept[-1][0], s), max(kept[-1][1], e), t]
        elif k == 0:
            kept.append([s, e, t])
        elif rng.random() > 0.5:
            kept[-1][1] = begin = max(kept[-1][1], s)
            if t[k:].strip():
                kept.append([begin, max(e, begin), t[k:].strip()])
        else:
            if p[:-k].strip():
                kept[-1] = [kept[-1][0], min(kept[-1][1], s), p[:-k].strip()]
            else:
                kept.pop()
            kept.append([s, e, t])
    return [tuple(caption) for caption in kept]


@pytest.mark.parametrize("seed", range(40))
def test_random_texts_are_deduplicated_as_by_a_simple_version(seed):
    rng = random.Random(seed)
    start = sorted(round(rng.uniform(0, 60), 2) for _ in range(30))
    texts = ["".join(rng.choices("ab \n", k=rng.randint(0, 9))) for _ in start]
    texts[seed % 30] = None
    captions = {"start": start, "end": [time + 4 for time in start], "text": texts}
    found = deduplicate(captions, random.Random(seed).random)
    assert list(zip(*found.values(), strict=True)) == simple_version(captions, random.Random(seed))


def test_a_caption_that_ends_before_it_starts_is_an_error():
    with pytest.raises(DataError, match=r"'late' starts at 5 s and ends at 2 s"):
        deduplicate({"start": [5.0], "end": [2.0], "text": ["late"]}, lambda: 0.0)


def write_source(folder: Path, suffix: str) -> Path:
    path = folder / f"raw_caption{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps({name: json.dumps(video) for name, video in VIDEOS.items()}))
    elif suffix == ".jsonl":
        lines = [json.dumps({"id": name} | video) for name, video in VIDEOS.items()]
        path.write_text("\n\n".join(lines))
    else:
        path.write_text(json.dumps(VIDEOS, indent=1))
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".pkl"])
def test_all_input_formats_give_the_same_corpus(tmp_path, suffix):
    source, output = write_source(tmp_path, suffix), tmp_path / "out.jsonl"
    assert main(["--input", str(source), "--output", str(output), "--seed", "5"]) == 0
    draw = random.Random(5).random
    expected = {name: deduplicate(video, draw) for name, video in VIDEOS.items()}
    if suffix == ".json":  # its reader replaces a lone surrogate
        expected["café"]["text"][-1] = "? half a pair"
    assert dict(iter_corpus(output)) == expected
    assert json.loads((tmp_path / "out.made.json").read_text())["videos_without_captions"] == 1


@pytest.mark.spawn
def test_times_are_corrected_and_counted_only_with_dedup(tmp_path):
    flawed = {
        "start": [4, -1.0, 2.0, None],
        "end": [3.0, 1.0, 5.0, 9.0],
        "text": ["b b", "a", 7, "untimed"],
    }
    for name in ("sentencified_htm_1200k", "raw_caption"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"x": flawed}))
    command = [sys.executable, "-m", "mmpt.processors.dedupprocessor", "--how2dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    ((_, captions),) = iter_corpus(tmp_path / "sentencified_htm_1200k.jsonl")
    assert captions == flawed | {"text": ["b b", "a", None, "untimed"]}
    ((_, captions),) = iter_corpus(tmp_path / "raw_caption_dedup.jsonl")
    assert captions == {"start": [0.0, 4.0], "end": [1.0, 4.0], "text": ["a", "b b"]}
    made = json.loads((tmp_path / "raw_caption_dedup.made.json").read_text())
    assert made["fixed"] == {"unsorted": 1, "negative": 1, "reversed": 1, "untimed": 1}


def test_a_second_run_writes_the_corpus_only_if_something_changed(tmp_path):
    source = write_source(tmp_path, ".json")
    output = tmp_path / "raw_caption_dedup.jsonl"
    inode = None
    for change, seed, made in (
        (lambda: None, "0", True),
        (lambda: None, "0", False),
        (lambda: output.write_bytes(output.read_bytes()[:-1]), "0", True),
        (lambda: source.write_text(json.dumps(VIDEOS | {"new": VIDEOS["none"]})), "0", True),
        (lambda: (tmp_path / "raw_caption_dedup.made.json").unlink(), "0", True),
        (lambda: None, "1", True),
    ):
        change()
        assert main(["--how2dir", str(tmp_path), "--seed", seed]) == 0
        assert (output.stat().st_ino != inode) == made
        inode = output.stat().st_ino


GOOD = b'{"a": {"start": [0], "end": [1], "text": ["x"]}}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.replace(b"1", b""), "video a: captions must be three lists of one length"),
        (GOOD.replace(b"1", b'"y"'), "video a: times must be numbers"),
        (GOOD.replace(b"1", b"9" * 400), "video a: times must be seconds, but one is too large"),
        (b'{"a": [1]}', "video a: captions must be three lists"),
        (
            GOOD.replace(b'"x"', b'"\xe9"'),
            "must be UTF-8 text, but holds byte 0xe9",
        ),
        (GOOD[:-1] + b", " + GOOD[1:], "a is entry 1 and entry 2"),
    ],
)
def test_broken_input_gives_one_message_and_no_output(tmp_path, capsys, content, message):
    (tmp_path / "raw_caption.json").write_bytes(content)
    assert main(["--how2dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {"raw_caption.json", ".raw_caption_dedup.jsonl.lock"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--how2dir", "nowhere"], "must hold sentencified_htm_1200k.json or raw_caption.json"),
        (["--input", "nowhere.json"], "nowhere.json: no such file"),
        (["--input", "x.jsonl", "--output", "x.jsonl"], "source and output must be two files"),
        (["--input", "x.json", "--output", "x.txt"], "the output must be a .jsonl file"),
        (["--output", "x.jsonl"], "`--output` names one file, so it needs `--input`"),
        (["--input", "captions.csv"], "must be a .jsonl, .json, .pkl file"),
    ],
)
def test_a_wrong_command_line_gives_one_message(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
