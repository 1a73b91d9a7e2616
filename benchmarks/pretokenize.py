"""Captions per second of the tokenisation: ours, and a loop over single captions.

    python benchmarks/pretokenize.py
    python benchmarks/pretokenize.py --memory 100000 300000

Both sides read the same generated captions, call the same tokenizer, and must write equal files. A
video has 100 captions. Their words come from a Zipf distribution over 60,000 words, and 30,000 of
these are in the vocabulary.

With --memory, the benchmark measures the peak memory of `mmpt dedup` and `mmpt tokenize` instead.
For every given number of videos, it makes a file of raw captions (15 per video, 0.9 KB), runs both
commands on it, and prints their peak resident memory.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from mmpt.batch import Captions, Split
from mmpt.prepare.captions.pretokenise import tokenise_captions
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.shardedtensor import write_shard_meta
from mmpt.shards.writer import write_caption_shard
from results import (
    ROOT,
    Figure,
    Options,
    at_least,
    rates,
    record,
    run_script,
    time_in_turns,
    timed,
)

NUM_WORDS, NUM_WHOLE = 60_000, 30_000
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHARD_SIZE = 250


def make_words(rng: np.random.Generator) -> list[str]:
    """Returns made-up words of two to nine letters."""
    lengths = rng.integers(2, 10, size=NUM_WORDS)
    letters = rng.integers(len(LETTERS), size=(NUM_WORDS, 9))
    words = []
    for row, length in zip(letters, lengths, strict=True):
        word = [LETTERS[i] for i in row[:length]]
        words.append("".join(word))
    return words


def write_bert(folder: Path, words: list[str]) -> None:
    """Writes the folder of a BERT whose vocabulary has the more frequent words, and all letters."""
    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = [f"##{letter}" for letter in LETTERS]
    pieces = dict.fromkeys([*special, *LETTERS, *inner, *words[:NUM_WHOLE]])
    lines = [f"{piece}\n" for piece in pieces]
    (folder / "vocab.txt").write_text("".join(lines))
    (folder / "config.json").write_text('{"model_type": "bert"}')


def write_captions(
    path: Path,
    words: list[str],
    num_videos: int,
    num_captions: int,
    rng: np.random.Generator,
) -> None:
    """Writes a file of raw captions like HowTo100M's, whose captions overlap their neighbours."""
    # The cumulative distribution of Zipf's law: the probability of word n is proportional to 1/n.
    share = 1 / np.arange(1, NUM_WORDS + 1)
    share = np.cumsum(share / share.sum())
    with open(path, "w") as file:
        for video_number in range(num_videos):
            sizes = rng.integers(3, 13, size=num_captions)
            numbers = np.searchsorted(share, rng.random(sizes.sum()))
            numbers = numbers.clip(max=NUM_WORDS - 1)
            drawn = iter([words[number] for number in numbers.tolist()])
            text = [" ".join(islice(drawn, int(size))) for size in sizes]
            start = np.cumsum(rng.uniform(1, 4, size=num_captions))
            start = start.round(2)
            end = (start + 4).round(2)
            video = {"start": start.tolist(), "end": end.tolist(), "text": text}
            separator = ", " if video_number else "{"
            file.write(f'{separator}"video{video_number:08d}": {json.dumps(video)}')
        file.write("}")


def write_meta(folder: Path, num_videos: int, shard_size: int) -> None:
    """Writes the meta file of the packed training features."""
    ids = [f"video{number:08d}" for number in range(num_videos)]
    shards = []
    for begin in range(0, num_videos, shard_size):
        shards.append(ids[begin : begin + shard_size])
    write_shard_meta(folder, Split.TRAIN, shards)


def plain(captions: Path, folder: Path, bert: Path, num_videos: int) -> None:
    """Tokenises one caption after the other, with all captions in memory."""
    tokenizer = load_tokenizer(str(bert))
    content = json.loads(captions.read_text())
    videos = list(content.values())
    for shard, begin in enumerate(range(0, num_videos, SHARD_SIZE)):
        rows: list[Captions] = []
        for video in videos[begin : begin + SHARD_SIZE]:
            cap = []
            for text in video["text"]:
                encoded = tokenizer(text[:96], add_special_tokens=False)
                cap.append(encoded["input_ids"])
            rows.append({"start": video["start"], "end": video["end"], "cap": cap})
        write_caption_shard(f"{folder}/plain.bert.", Split.TRAIN, shard, rows)


def compare_speed(folder: Path, num_videos: int, rounds: int) -> list[Figure]:
    """Returns the captions per second of both sides, and checks that their files are equal."""
    rng = np.random.default_rng(0)
    words = make_words(rng)
    bert = folder / "bert"
    captions = folder / "captions.json"
    write_bert(bert, words)
    write_captions(captions, words, num_videos, 100, rng)
    load_tokenizer(str(bert))  # it is cached, so neither side loads it in a round
    num_processes = sorted({1, os.cpu_count() or 1})

    def ours(workers: int, _: int) -> None:
        target = folder / f"ours{workers}"
        shutil.rmtree(target, ignore_errors=True)
        write_meta(target, num_videos, SHARD_SIZE)
        tokenise_captions(captions, target, str(bert), workers=workers)

    def check(*_: None) -> None:
        for path in (folder / "plain").glob("*.npy"):
            same = path.name.replace("plain.", "captions.", 1)
            for workers in num_processes:
                other = folder / f"ours{workers}" / same
                assert path.read_bytes() == other.read_bytes(), same

    one_by_one, *taken = time_in_turns(
        rounds,
        lambda _: plain(captions, folder / "plain", bert, num_videos),
        *(partial(ours, workers) for workers in num_processes),
        check=check,
    )
    note = "equal files; plain tokenises caption after caption"
    num_captions = 100 * num_videos
    plain_rates = rates(num_captions, one_by_one)
    figures = []
    for workers, side in zip(num_processes, taken, strict=True):
        what = f"tokenising, {workers} processes"
        our_rates = rates(num_captions, side)
        figures.append(Figure(what, "captions/s", our_rates, plain_rates, note))
    return figures


def peak_megabytes(arguments: list[str]) -> float:
    """Runs a command; returns the peak resident memory of its largest process in MB."""
    command = [sys.executable, *arguments]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, arguments
    return usage.ru_maxrss * 1024 / 1e6


def measure_memory(folder: Path, scales: list[int]) -> None:
    """Prints the peak memory of both commands for every number of videos."""
    rng = np.random.default_rng(0)
    words = make_words(rng)
    write_bert(folder / "bert", words)
    print(f"{'videos':>9}{'raw file':>10}{'command':>19}{'peak':>9}{'seconds':>9}")
    for num_videos in scales:
        place = folder / str(num_videos)
        place.mkdir()
        captions = place / "raw_caption.json"
        write_captions(captions, words, num_videos, 15, rng)
        write_meta(place / "feat", num_videos, 4096)
        size = captions.stat().st_size / 1e6
        overrides = [
            f"dataset.bert_name={folder / 'bert'}",
            f"dataset.target_dir={place / 'feat'}",
            f"dataset.caption_pkl_path={place / 'raw_caption_dedup.pkl'}",
        ]
        scripts = "scripts/text_token_extractor"
        yaml = f"{scripts}/configs/bert-base-uncased.yaml"
        commands = {
            "dedupprocessor": [
                "-m",
                "mmpt.processors.dedupprocessor",
                "--how2dir",
                str(place),
            ],
            "pretokenization": [f"{scripts}/pretokenization.py", yaml, *overrides],
        }
        for name, arguments in commands.items():
            seconds, peak = timed(peak_megabytes, arguments)
            row = f"{num_videos:>9,}{size:>7,.0f} MB{name:>19}{peak:>6.0f} MB{seconds:>9.1f}"
            print(row, flush=True)


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.number("--videos", 2000, "videos of 100 captions for the comparison")
    parser.number("--rounds", 3)
    parser.add_argument(
        "--memory",
        type=at_least(1),
        nargs="+",
        metavar="VIDEOS",
        help="measure memory instead",
    )
    parser.add_argument(
        "--folder", help="folder of the generated files (default: the temporary folder)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        if args.memory:
            measure_memory(Path(folder), args.memory)
        else:
            figures = compare_speed(Path(folder), args.videos, args.rounds)
            record(figures, args.out)


if __name__ == "__main__":
    run_script(main)
