"""Tiny training runs of every recipe, uninterrupted runs for comparison, and their data."""

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.chaos.phases import Line, read_lines, record_phases
from tests.support.e2e_data import make_e2e_files
from tests.support.interruptions import Training
from tests.support.jobs import NORTON, RELEASED, VIDEOCLIP, corpus_overrides
from tests.support.paths import GOLDEN
from tests.support.small_corpus import change_bert, make_small_corpus

FINE_TUNING = "projects/retri/norton/vtt_ft.yaml"
RECIPES = {"VideoCLIP": VIDEOCLIP, "Norton": NORTON, "fine-tuning": FINE_TUNING}
COMMON = [
    "fairseq.common.log_interval=3",  # not 1, and no divisor of the updates of an epoch
    "fairseq.optimization.warmup_updates=2",
    "fairseq.optimization.max_epoch=2",
    "fairseq.checkpoint.save_interval_updates=3",
    "fairseq.checkpoint.keep_interval_updates=2",
]


@dataclass(frozen=True)
class Setting:
    """The settings of a training run."""

    recipe: str = "VideoCLIP"
    size: int = 1
    num_workers: int = 0
    dropout: bool = True
    more: tuple[str, ...] = ()  # overrides that do not change the result

    def __str__(self) -> str:
        dropout = [] if self.dropout else ["no dropout"]
        workers = [f"{self.num_workers} workers"] if self.num_workers else []
        return ", ".join([self.recipe, *workers, *dropout, *self.more])


@dataclass(frozen=True)
class Whole:
    """An uninterrupted training run."""

    save_dir: Path
    lines: list[Line]
    """The phases of the run."""


def phases_file(save_dir: Path) -> Path:
    """Returns the file in which a training run records its phases."""
    return save_dir.with_suffix(".phases")


class TrainingFactory:
    """Makes training runs on a corpus, in a folder.

    Args:
        corpus: a folder of `mmpt make-demo-data`. If it is missing, it is made.
        folder: for the runs.
    """

    def __init__(self, corpus: Path, folder: Path):
        self.corpus, self.folder = corpus, folder
        folder.mkdir(parents=True, exist_ok=True)
        if not corpus.exists():
            make_small_corpus(corpus)

    def training(self, setting: Setting, save_dir: Path, *more: str) -> Training:
        """Returns a training run that records its phases."""
        record = partial(record_phases, phases_file(save_dir))
        overrides = [*self.overrides(setting), *more]
        return Training(
            RECIPES[setting.recipe], overrides, save_dir, setting.size, record
        )

    def overrides(self, setting: Setting) -> list[str]:
        """Returns the overrides of a training run, without its `save_dir`."""
        overrides = [
            *COMMON,
            f"fairseq.dataset.num_workers={setting.num_workers}",
            *setting.more,
        ]
        if setting.recipe == "fine-tuning":
            return overrides + self._fine_tuning()
        corpus = self._corpus_with_dropout() if setting.dropout else self.corpus
        own = corpus_overrides(corpus, self.folder)
        overrides += [text for text in own if "save_dir" not in text]
        if setting.recipe == "Norton":
            start = self.whole(Setting(dropout=setting.dropout)).save_dir
            overrides += [
                *RELEASED,
                f"fairseq.checkpoint.restore_file={start}/checkpoint_best.pt",
            ]
        return overrides

    def _fine_tuning(self) -> list[str]:
        """Returns the overrides of fine-tuning, and writes the data if they are missing."""
        files = self.folder / "files"
        if not files.exists():
            part = files.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            make_e2e_files(part)
            part.rename(files)
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

    def whole(self, setting: Setting) -> Whole:
        """Returns an uninterrupted training run.

        All numbers of workers share one run, because they do not change the result.
        """
        dropout = "" if setting.dropout else "-no-dropout"
        save_dir = self.folder / f"whole-{setting.recipe}-{setting.size}{dropout}"
        complete = save_dir.with_suffix(".complete")
        if not complete.exists():
            remove(save_dir)
            training = self.training(setting, save_dir)
            training.run()
            with open(phases_file(save_dir), "a") as file:
                file.write(f"{time.monotonic()} end 0\n")
            phases_file(save_dir).rename(complete)
        return Whole(save_dir, read_lines(complete))

    def _corpus_with_dropout(self) -> Path:
        """Returns a copy of the corpus whose BERT has dropout."""
        copy = self.folder / "with-dropout"
        if not copy.exists():
            part = copy.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(self.corpus, part)
            change_bert(part, dropout=0.1)
            part.rename(copy)
        return copy


def remove(save_dir: Path) -> None:
    """Removes the folder of a training run and the files next to it."""
    shutil.rmtree(save_dir, ignore_errors=True)
    for path in save_dir.parent.glob(f"{save_dir.name}.*"):
        path.unlink()
