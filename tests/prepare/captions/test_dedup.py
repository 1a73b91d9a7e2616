"""Tests of de-duplication against a simple version, and of the command that writes a corpus."""

import json
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


def simple_version(
    captions: dict, rng: random.Random
) -> list[tuple[float, float, str]]:
    """Follows the rules of the specification, and tries all lengths of the overlap."""
    kept: list[tuple[float, float, str]] = []
    for start, end, text in zip(*captions.values(), strict=True):
        text = text.replace("\n", " ").strip() if isinstance(text, str) else ""
        if not text:
            continue
        if not kept:
            kept.append((start, end, text))
            continue
        last_start, last_end, last_text = kept.pop()
        sizes = [
            size for size in range(1, len(text) + 1) if last_text.endswith(text[:size])
        ]
        if last_text.endswith(text):
            kept.append((last_start, max(last_end, end), last_text))
        elif text.startswith(last_text):
            kept.append((min(last_start, start), max(last_end, end), text))
        elif not sizes:
            kept += [(last_start, last_end, last_text), (start, end, text)]
        elif rng.random() > 0.5:
            middle = max(last_end, start)
            rest = text[sizes[0] :].strip()
            kept.append((last_start, middle, last_text))
            if rest:
                kept.append((middle, max(end, middle), rest))
        else:
            rest = last_text[: -sizes[0]].strip()
            if rest:
                kept.append((last_start, min(last_end, start), rest))
            kept.append((start, end, text))
    return kept


@pytest.mark.parametrize("seed", range(40))
def test_random_texts_are_deduplicated_as_by_a_simple_version(seed):
    rng = random.Random(seed)
    start = sorted(round(rng.uniform(0, 60), 2) for _ in range(30))
    end = [time + 4 for time in start]
    texts = []
    for _ in start:
        letters = rng.choices("ab \n", k=rng.randint(0, 9))
        texts.append("".join(letters))
    texts[seed % 30] = None
    captions = {"start": start, "end": end, "text": texts}
    found = deduplicate(captions, random.Random(seed).random)
    rows = list(zip(*found.values(), strict=True))
    assert rows == simple_version(captions, random.Random(seed))


def test_a_caption_that_ends_before_it_starts_is_an_error():
    with pytest.raises(DataError, match=r"'late' starts at 5 s and ends at 2 s"):
        deduplicate({"start": [5.0], "end": [2.0], "text": ["late"]}, lambda: 0.0)


def write_source(folder: Path, suffix: str) -> Path:
    path = folder / f"raw_caption{suffix}"
    if suffix == ".pkl":
        texts = {name: json.dumps(video) for name, video in VIDEOS.items()}
        path.write_bytes(pickle.dumps(texts))
    elif suffix == ".jsonl":
        lines = [json.dumps({"id": name} | video) for name, video in VIDEOS.items()]
        path.write_text("\n\n".join(lines))
    else:
        path.write_text(json.dumps(VIDEOS, indent=1))
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".pkl"])
def test_all_input_formats_give_the_same_corpus(tmp_path, suffix):
    source = write_source(tmp_path, suffix)
    output = tmp_path / "out.jsonl"
    assert main(["--input", str(source), "--output", str(output), "--seed", "5"]) == 0
    draw = random.Random(5).random
    expected = {name: deduplicate(video, draw) for name, video in VIDEOS.items()}
    if suffix == ".json":  # its reader replaces a lone surrogate
        expected["café"]["text"][-1] = "? half a pair"
    assert dict(iter_corpus(output)) == expected
    note = json.loads((tmp_path / "out.made.json").read_text())
    assert note["videos_without_captions"] == 1


@pytest.mark.spawn
def test_times_are_corrected_and_counted_only_with_dedup(tmp_path):
    flawed = {
        "start": [4, -1.0, 2.0, None],
        "end": [3.0, 1.0, 5.0, 9.0],
        "text": ["b b", "a", 7, "untimed"],
    }
    for name in ("sentencified_htm_1200k.json", "raw_caption.json"):
        path = tmp_path / name
        path.write_text(json.dumps({"x": flawed}))
    command = [
        sys.executable,
        "-m",
        "mmpt.processors.dedupprocessor",
        "--how2dir",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=ROOT, check=True)
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

    def is_written(seed: str = "0") -> bool:
        """Runs the command. Returns whether the output is a new file."""
        nonlocal inode
        assert main(["--how2dir", str(tmp_path), "--seed", seed]) == 0
        previous = inode
        inode = output.stat().st_ino
        return inode != previous

    assert is_written()
    assert not is_written()
    content = output.read_bytes()
    output.write_bytes(content[:-1])
    assert is_written()
    more_videos = VIDEOS | {"new": VIDEOS["none"]}
    source.write_text(json.dumps(more_videos))
    assert is_written()
    (tmp_path / "raw_caption_dedup.made.json").unlink()
    assert is_written()
    assert is_written(seed="1")


GOOD = b'{"a": {"start": [0], "end": [1], "text": ["x"]}}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            GOOD.replace(b"1", b""),
            "video a: captions must be three lists of one length",
        ),
        (GOOD.replace(b"1", b'"y"'), "video a: times must be numbers"),
        (
            GOOD.replace(b"1", b"9" * 400),
            "video a: times must be seconds, but one is too large",
        ),
        (b'{"a": [1]}', "video a: captions must be three lists"),
        (
            GOOD.replace(b'"x"', b'"\xe9"'),
            "must be UTF-8 text, but holds byte 0xe9",
        ),
        (GOOD[:-1] + b", " + GOOD[1:], "a is entry 1 and entry 2"),
    ],
)
def test_broken_input_gives_one_message_and_no_output(
    tmp_path, capsys, content, message
):
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
        (
            ["--how2dir", "nowhere"],
            "must hold sentencified_htm_1200k.json or raw_caption.json",
        ),
        (["--input", "nowhere.json"], "nowhere.json: no such file"),
        (
            ["--input", "x.jsonl", "--output", "x.jsonl"],
            "source and output must be two files",
        ),
        (
            ["--input", "x.json", "--output", "x.txt"],
            "the output must be a .jsonl file",
        ),
        (["--output", "x.jsonl"], "`--output` names one file, so it needs `--input`"),
        (["--input", "captions.csv"], "must be a .jsonl, .json, .pkl file"),
    ],
)
def test_a_wrong_command_line_gives_one_message(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
