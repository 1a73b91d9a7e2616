"""Compares preparation that is killed and run again with preparation that is not interrupted.

    python -m tests.support.killed_chain FOLDER KILLS [SEED]

All commands from videos to shards are run. Each is killed KILLS times at random moments with
SIGKILL, SIGTERM or SIGINT, and then run to its end. Commands run in forks of this process, so that
libraries are imported only once. Prints the files that differ. The exit code is 1 if there are any.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot  # noqa: F401  before the forks
import torch

import mmpt.models.mmfusion  # noqa: F401  imports transformers, before the forks
from mmpt.cli import dedup, extract, pack, prepare, tokenize
from mmpt.config.fairseq import settings_model
from tests.support.extract_jobs import SMALL, Pooling
from tests.support.paths import ROOT
from tests.support.tiny_bert import tiny_bert
from tests.support.videos import regular_times, truncate, write_video

CONFIG = "scripts/text_token_extractor/configs/bert-base-uncased.yaml"
WORDS = [
    "take",
    "the",
    "pan",
    "now",
    "and",
    "heat",
    "it",
    "slowly",
    "over",
    "fire",
    "until",
    "oil",
]
SECONDS = {"a": 1, "b": 0.5, "c": 2, "d": 0.2}
Command = Callable[[], int]


def make_inputs(folder: Path) -> None:
    """Writes videos, their captions, the captions of 1,000 other videos, lists, and a BERT.

    One video is truncated, and one is not a video.
    """
    for name in ("raw", "captions"):
        (folder / name).mkdir(parents=True)
    for name, seconds in SECONDS.items():
        write_video(folder / "raw" / f"{name}.mp4", regular_times(seconds), SMALL)
    whole = write_video(folder / "whole.mkv", regular_times(3), SMALL)
    truncate(whole, folder / "raw" / "part.mkv", 0.6)
    (folder / "raw" / "broken.mp4").write_text("not a video")
    rng = random.Random(0)
    corpus = {}
    for name in [*SECONDS, "part", "broken", *(f"x{number}" for number in range(1000))]:
        start = sorted(round(rng.uniform(0, 0.6), 2) for _ in range(rng.randint(1, 9)))
        text = [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in start]
        corpus[name] = {
            "start": start,
            "end": [time + 0.4 for time in start],
            "text": text,
        }
        if not name.startswith("x"):
            (folder / "captions" / f"{name}.json").write_text(json.dumps(corpus[name]))
    (folder / "raw_caption.json").write_text(json.dumps(corpus))
    (folder / "train.lst").write_text("a\nb\nbroken\nc\n")
    (folder / "val.lst").write_text("d\npart\n")
    tiny_bert(folder / "bert")


def commands(inputs: Path, out: Path) -> dict[str, Command]:
    """Returns all commands, in order, that make the shards in `out` from `inputs`."""
    captions, bert, shards = out / "captions.jsonl", inputs / "bert", out / "shards"
    lists = f"--train-list {inputs}/train.lst --val-list {inputs}/val.lst"
    keys = f"dataset.bert_name={bert} dataset.caption_pkl_path={captions}"
    mine, own = (
        f"--captions {inputs}/captions --out {out}/{name} --yaml {out}/{name}.yaml "
        f"--bert-name {bert} --shard-size 2"
        for name in ("mine", "own")
    )
    lines = {
        "extract": (extract, f"--vdir {inputs}/raw --fdir {out}/feat --device=cpu"),
        "dedup": (
            dedup,
            f"--input {inputs}/raw_caption.json --output {captions} --dedup",
        ),
        "pack": (
            pack,
            f"--features {out}/feat --target {shards} --shard-size 2 {lists}",
        ),
        "tokenise": (
            tokenize,
            f"{CONFIG} {keys} dataset.target_dir={shards} --workers 2",
        ),
        "prepare": (
            prepare,
            f"--videos {inputs}/raw --random-weights {mine}",
        ),
        "prepare features": (prepare, f"--features {out}/feat {own}"),
    }
    return {
        name: lambda module=module, line=line: module.main(line.split())
        for name, (module, line) in lines.items()
    }


def start(command: Command, log: Path) -> int:
    """Runs a command in a fork. Returns the id of the process."""
    process = os.fork()
    if process == 0:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os._exit(command())
    return process


def finish(command: Command, log: Path) -> None:
    """Runs a command to its end."""
    assert os.waitpid(start(command, log), 0)[1] == 0, log.read_text()


def results(out: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of the files that must not differ.

    Locks, notes of the commands about modification times, and counts of a single run are left out.
    """
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        is_note = ".packing" in name or ".tokenising" in name
        if not path.is_file() or is_note or name.endswith((".log", "lock")):
            continue
        content = path.read_bytes().replace(str(out).encode(), b"OUT")
        if name.endswith("extract_summary.json"):
            summary = json.loads(content)
            kept = [summary["finished"], summary["failed"], summary["damaged"]]
            content = json.dumps(kept).encode()
        yield name, content


def main(folder: Path, num_kills: int, seed: int = 0) -> int:
    """Runs all commands twice, without and with kills. Returns 1 if the results differ."""
    os.chdir(ROOT)
    torch.set_num_threads(1)
    settings_model(import_fairseq=True)  # imports fairseq, before the forks
    extract.open_network = lambda *_, **__: (Pooling(), "pooling")  # type: ignore[assignment]
    make_inputs(folder / "in")
    took_s = {}
    for name, command in commands(folder / "in", folder / "whole").items():
        begin = time.monotonic()
        finish(command, folder / "whole.log")
        took_s[name] = time.monotonic() - begin
    rng = random.Random(seed)
    for name, command in commands(folder / "in", folder / "killed").items():
        for number in rng.choices(
            [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], k=num_kills
        ):
            process = start(command, folder / "killed.log")
            time.sleep(rng.uniform(0, took_s[name]))
            os.kill(process, number)
            os.waitpid(process, 0)
        finish(command, folder / "killed.log")
    wanted, found = dict(results(folder / "whole")), dict(results(folder / "killed"))
    names = sorted(wanted.keys() | found.keys())
    different = [name for name in names if wanted.get(name) != found.get(name)]
    print(f"{len(wanted)} files, of which {len(different)} differ: {different}")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
