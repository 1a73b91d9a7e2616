"""Interrupts tiny trainings at random moments, and compares them with trainings that ran through.

    python -m tests.support.chaos CORPUS FOLDER [--kinds kill,term] [--moments 10] [--seed 0] ...

CORPUS is a folder of `mmpt make-demo-data`, or a missing one, which is then made. Prints a line for
each interruption, and a table of all kinds as Markdown. The exit code is 1 if a run differs.
"""

import argparse
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from mmpt.cli import make_demo_data
from mmpt.tasks.fairseqmmtask import FairseqMMTask
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.e2e_data import make_e2e_files
from tests.support.interruptions import Training, differences
from tests.support.jobs import NORTON, VIDEOCLIP, corpus_overrides
from tests.support.paths import GOLDEN, ROOT

FINE_TUNING = "projects/retri/norton/vtt_ft.yaml"
RECIPES = {"videoclip": VIDEOCLIP, "norton": NORTON, "fine-tuning": FINE_TUNING}
COMMON = [
    "fairseq.common.log_interval=3",  # neither divides the updates of an epoch nor is 1
    "fairseq.optimization.warmup_updates=2",
    "fairseq.optimization.max_epoch=2",
    "fairseq.checkpoint.save_interval_updates=3",
    "fairseq.checkpoint.keep_interval_updates=2",
]
SMALL_FILE = 1 << 17
"""Bytes that a file may have after the disk is full."""
MOMENTS = (0.15, 0.95)
"""Moments of interruptions, as shares of the time that the whole training takes."""
TIMEOUT_S = 1.5
"""Time limit for a process that does not answer."""


@dataclass(frozen=True)
class Setting:
    """A training and its settings."""

    recipe: str = "videoclip"
    size: int = 1
    num_workers: int = 0
    dropout: bool = True
    more: tuple[str, ...] = ()  # overrides that do not change the result

    def __str__(self) -> str:
        dropout = "dropout" if self.dropout else "no dropout"
        processes = "1 process" if self.size == 1 else f"{self.size} processes"
        parts = [
            self.recipe,
            processes,
            f"{self.num_workers} workers",
            dropout,
            *self.more,
        ]
        return ", ".join(parts)


QUICK = [
    ("SIGKILL", Setting(size=2, num_workers=1)),
    ("SIGKILL", Setting(more=("fairseq.checkpoint.save_every_minutes=1e-6",))),
    ("SIGTERM", Setting(num_workers=4)),
    ("SIGTERM", Setting("norton")),
    ("SIGINT", Setting()),
    ("one rank asked", Setting(size=2)),
    ("one rank lost", Setting(size=2)),
    ("one rank hangs", Setting(size=2)),
    ("loader worker killed", Setting(num_workers=2)),
    ("disk full", Setting()),
    ("checkpoint damaged", Setting()),
    ("folder moved", Setting("fine-tuning")),
]
"""Interruptions of the quick test."""


@dataclass
class Outcome:
    """One interruption."""

    kind: str
    setting: str
    moment_s: float
    codes: list[int]
    different: list[str]
    lost_updates: int
    recovery_s: float


class Laboratory:
    """Runs trainings on a corpus, in a folder."""

    def __init__(self, corpus: Path, folder: Path):
        self.corpus, self.folder = corpus, folder
        self._whole: dict[tuple[str, int, bool], tuple[Path, float]] = {}

    def training(self, setting: Setting, save_dir: Path, *more: str) -> Training:
        """Returns a training that counts its updates in a file."""
        overrides = [
            *COMMON,
            f"fairseq.dataset.num_workers={setting.num_workers}",
            *setting.more,
            *more,
        ]
        if setting.recipe == "fine-tuning":
            overrides += self._fine_tuning()
        else:
            corpus = (
                with_dropout(self.corpus, self.folder)
                if setting.dropout
                else self.corpus
            )
            own = corpus_overrides(corpus, save_dir)
            overrides += [text for text in own if "save_dir" not in text]
        if setting.recipe == "norton":
            start, _ = self.whole(Setting(dropout=setting.dropout))
            overrides.append(
                f"fairseq.checkpoint.restore_file={start}/checkpoint_best.pt"
            )
        count = partial(count_updates, counter(save_dir))
        return Training(
            RECIPES[setting.recipe], overrides, save_dir, setting.size, count
        )

    def _fine_tuning(self) -> list[str]:
        files = self.folder / "files"
        if not files.exists():
            make_e2e_files(files)
        data = files / "data/msrvtt"
        names = {
            "train_path": "MSRVTT_train.9k.csv",
            "val_path": "MSRVTT_JSFUSION_test.csv",
            "json_path": "MSRVTT_data.json",
            "vfeat_dir": "msrvtt_feature_fps30_512",
        }
        return [
            *(f"dataset.{key}={data}/{name}" for key, name in names.items()),
            f"dataset.bert_name={files}/tinybert",
            "model.num_hidden_video_layers=2",
            "fairseq.dataset.batch_size=20",
            f"fairseq.checkpoint.restore_file={GOLDEN}/checkpoint_norton_tiny.pt",
            "fairseq.common.cpu=true",
            "fairseq.common.fp16=false",
        ]

    def whole(self, setting: Setting) -> tuple[Path, float]:
        """Returns the folder of a training that runs through, and its seconds.

        It is run once for all numbers of workers, which do not change the result.
        """
        key = (setting.recipe, setting.size, setting.dropout)
        if key not in self._whole:
            name = f"whole-{setting.recipe}-{setting.size}-{setting.dropout}"
            training = self.training(setting, self.folder / name)
            begin = time.monotonic()
            training.run()
            self._whole[key] = training.save_dir, time.monotonic() - begin
        return self._whole[key]

    def interrupt(
        self, kind: str, setting: Setting, name: str, rng: random.Random
    ) -> Outcome:
        """Runs a training that is interrupted at a random moment, and then to its end.

        If the training ends before the moment, another one is tried.
        """
        whole, took_s = self.whole(setting)
        more = [f"fairseq.distributed_training.timeout_minutes={TIMEOUT_S / 60}"]
        codes = [0]
        while not any(codes):
            for path in self.folder.glob(f"{name}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            save_dir = self.folder / name
            training = self.training(
                setting, save_dir, *(more if "hangs" in kind else [])
            )
            training.start()
            moment_s = 0.0 if "hangs" in kind else rng.uniform(*MOMENTS) * took_s
            time.sleep(moment_s)
            codes = KINDS[kind](training, rng)
        before, begin = done_updates(training.save_dir), time.monotonic()
        saved = saved_updates(training.save_dir)
        training.start()
        recovery_s = wait_for_update(training, begin)
        last = training.wait()
        different = (
            []
            if not any(last)
            else [f"exit codes {last}", training.log.read_text()[-900:]]
        )
        different += differences(whole, training.save_dir)
        lost = max(before - saved, 0)
        return Outcome(kind, str(setting), moment_s, codes, different, lost, recovery_s)


def with_dropout(corpus: Path, folder: Path) -> Path:
    """Returns a copy of the corpus whose BERT has dropout."""
    copy = folder / "with-dropout"
    if not copy.exists():
        shutil.copytree(corpus, copy)
        path = copy / "bert/config.json"
        config = json.loads(path.read_text())
        config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        path.write_text(json.dumps(config))
    return copy


def make_corpus(folder: Path) -> None:
    """Makes a corpus with a tiny BERT without dropout."""
    sizes = ["--num-videos", "32", "--num-val", "8", "--shard-size", "20"]
    assert make_demo_data.main(["--out", str(folder), "--seed", "3", *sizes]) == 0
    path = folder / "bert/config.json"
    config = json.loads(path.read_text())
    config |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 2, "hidden_dropout_prob": 0.0}
    config |= {"attention_probs_dropout_prob": 0.0}
    path.write_text(json.dumps(config))


# ---- updates


def counter(save_dir: Path) -> Path:
    """Returns the file that holds the number of the last update of a run."""
    return save_dir.with_suffix(".updates")


def count_updates(path: Path, rank: int) -> None:
    """Makes this training process write the number of each update to a file."""
    original = FairseqMMTask.optimizer_step

    def optimizer_step(
        task: FairseqMMTask, *args: Any, update_num: int, **kwargs: Any
    ) -> None:
        original(task, *args, update_num=update_num, **kwargs)
        if rank == 0:
            path.write_text(str(update_num + 1))

    FairseqMMTask.optimizer_step = optimizer_step  # type: ignore[method-assign]


def done_updates(save_dir: Path) -> int:
    """Returns the number of the last update of a run, saved or not."""
    path = counter(save_dir)
    return int(path.read_text() or 0) if path.exists() else 0


def saved_updates(save_dir: Path) -> int:
    """Returns the number of updates after which a run was saved."""
    for name in ("checkpoint_last.pt", "checkpoint_previous.pt"):
        try:
            return int(
                load_checkpoint(save_dir / name)["optimizer_history"][-1]["num_updates"]
            )
        except ValueError:
            continue
    return 0


def wait_for_update(training: Training, begin: float) -> float:
    """Returns the seconds since `begin` until a process has made an update, or has ended."""
    path = counter(training.save_dir)
    last = path.stat().st_mtime_ns if path.exists() else 0
    while not (path.exists() and path.stat().st_mtime_ns > last):
        if os.waitid(os.P_PID, training.pids[0], os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.005)
    return time.monotonic() - begin


# ---- kinds of interruptions; each ends the training and returns its exit codes


def send(number: signal.Signals, training: Training, rng: random.Random) -> list[int]:
    """Sends a signal to all processes and their loader workers."""
    training.signal(number)
    return training.wait()


def lose_rank(training: Training, rng: random.Random) -> list[int]:
    """Kills one process of a run."""
    training.signal(signal.SIGKILL, [rng.randrange(training.size)])
    return training.wait()


def ask_one_rank(training: Training, rng: random.Random) -> list[int]:
    """Asks one process of a run to stop."""
    os.kill(training.pids[rng.randrange(training.size)], signal.SIGUSR1)
    return training.wait()


def hang(training: Training, rng: random.Random) -> list[int]:
    """Stops one process of a run in its first epoch, so that the others wait for it.

    In a refresh, they would wait for hours.
    """
    wait_for_update(training, 0.0)
    time.sleep(rng.uniform(0, 0.05))
    rank = rng.randrange(training.size)
    training.signal(signal.SIGSTOP, [rank])
    return training.wait(grace_s=1.0)


def kill_worker(training: Training, rng: random.Random) -> list[int]:
    """Kills a loader worker, or waits for the end of the run if there is none."""
    while True:
        if os.waitid(os.P_PID, training.pids[0], os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        try:
            workers = psutil.Process(training.pids[0]).children()
        except psutil.NoSuchProcess:
            break
        if workers:
            rng.choice(workers).kill()
            break
        time.sleep(0.005)
    return training.wait()


def fill_disk(training: Training, rng: random.Random) -> list[int]:
    """Lets no file grow beyond a few kilobytes, as if the disk was full."""
    for pid in training.pids:
        try:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALL_FILE, SMALL_FILE))
        except ProcessLookupError:
            continue
    return training.wait()


def damage(training: Training, rng: random.Random) -> list[int]:
    """Kills a run, and then cuts its last checkpoint short or writes zeros into it."""
    training.signal(signal.SIGKILL)
    codes = training.wait()
    path = training.save_dir / "checkpoint_last.pt"
    if path.exists():
        size = path.stat().st_size
        with open(path, "r+b") as file:
            if rng.random() < 0.5:
                file.truncate(rng.choice([0, rng.randrange(size)]))
            else:
                file.seek(rng.randrange(size // 2))
                file.write(bytes(size // 4))
    return codes


def move(training: Training, rng: random.Random) -> list[int]:
    """Kills a run, and continues it in a copy of its folder."""
    training.signal(signal.SIGKILL)
    codes = training.wait()
    moved = training.save_dir.with_name(f"{training.save_dir.name}-moved")
    if training.save_dir.exists():
        shutil.copytree(training.save_dir, moved)
        shutil.rmtree(training.save_dir)
    training.save_dir = moved
    return codes


KINDS: dict[str, Callable[[Training, random.Random], list[int]]] = {
    "SIGKILL": partial(send, signal.SIGKILL),
    "SIGTERM": partial(send, signal.SIGTERM),
    "SIGINT": partial(send, signal.SIGINT),
    "SIGUSR1": partial(send, signal.SIGUSR1),
    "SIGUSR2": partial(send, signal.SIGUSR2),
    "one rank asked": ask_one_rank,
    "one rank lost": lose_rank,
    "one rank hangs": hang,
    "loader worker killed": kill_worker,
    "disk full": fill_disk,
    "checkpoint damaged": damage,
    "folder moved": move,
}


# ---- the command


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yields the lines of a table with a row for each kind and setting."""
    yield "| interruption | training | moments | identical | lost updates | seconds to recover |"
    yield "|---|---|---:|---:|---:|---:|"
    for kind, setting in dict.fromkeys((one.kind, one.setting) for one in outcomes):
        rows = [one for one in outcomes if (one.kind, one.setting) == (kind, setting)]
        identical = sum(not one.different for one in rows)
        lost = max(one.lost_updates for one in rows)
        seconds = max(one.recovery_s for one in rows)
        yield f"| {kind} | {setting} | {len(rows)} | {identical} | {lost} | {seconds:.1f} |"


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kinds", default="SIGKILL", help=", ".join(KINDS))
    parser.add_argument(
        "--moments", type=int, default=10, help="for each kind and setting"
    )
    parser.add_argument("--recipes", default="videoclip", help=", ".join(RECIPES))
    parser.add_argument("--sizes", default="1", help="numbers of processes")
    parser.add_argument("--workers", default="0", help="numbers of loader workers")
    parser.add_argument("--dropout", default="yes", help="yes, no or both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="one moment of each common kind"
    )
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    options = parser.parse_args()
    os.chdir(ROOT)
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)
    if not options.corpus.exists():
        make_corpus(options.corpus)
    options.folder.mkdir(parents=True, exist_ok=True)
    laboratory = Laboratory(options.corpus.resolve(), options.folder.resolve())
    rng, outcomes = random.Random(options.seed), []
    for kind, setting in QUICK if options.quick else settings(options):
        for _ in range(1 if options.quick else options.moments):
            name = f"run-{len(outcomes)}"
            outcome = laboratory.interrupt(kind, setting, name, rng)
            outcomes.append(outcome)
            state = (
                "differs: " + "; ".join(outcome.different)
                if outcome.different
                else "identical"
            )
            print(
                f"{name}: {kind} after {outcome.moment_s:.2f} s, exit codes {outcome.codes}, "
                f"{outcome.lost_updates} updates lost: {state}",
                flush=True,
            )
            if not outcome.different:
                for path in options.folder.glob(f"{name}*"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    print("\n".join(table(outcomes)))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1))
    return int(any(one.different for one in outcomes))


def settings(options: argparse.Namespace) -> Iterator[tuple[str, Setting]]:
    """Yields each kind of interruption with each setting that the options name."""
    dropouts = {"yes": [True], "no": [False], "both": [True, False]}[options.dropout]
    for kind in options.kinds.split(","):
        for recipe in options.recipes.split(","):
            for size in map(int, options.sizes.split(",")):
                for num_workers in map(int, options.workers.split(",")):
                    for dropout in dropouts:
                        yield kind, Setting(recipe, size, num_workers, dropout)


if __name__ == "__main__":
    sys.exit(main())
