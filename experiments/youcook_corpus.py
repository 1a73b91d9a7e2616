"""Makes a corpus from the sentences of YouCook2, which people wrote, with features of their words.

    python -m experiments.youcook_corpus --out data/youcook-demo --seed 0

It needs your own copy of the validation sentences (`--csv`, default data/youcook2_validation.csv),
with the columns video_id, start, end and text, in seconds. The videos, their segments and their
order are real. The features of a segment are made from the sum of random vectors of its words. Rare
words have longer vectors. A narrator says parts of the sentences, with the noise of the corpus
`half-aligned`: some are early or late, and some captions are about other things. All files have the
formats of `mmpt make-demo-data`.
"""

import argparse
import csv
import itertools
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.corpora import HALF_ALIGNED
from mmpt.errors import DataError
from mmpt.prepare.demo_corpus.corpus import write_files
from mmpt.prepare.demo_corpus.narration import narrate
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.prepare.demo_corpus.video import Video
from mmpt.prepare.demo_corpus.words import NARRATION, make_vocabulary
from mmpt.prepare.demo_corpus.world import (
    LATENT_SIZE,
    Performance,
    Step,
    World,
    make_world,
)
from mmpt.utils.command import run_command
from mmpt.utils.rng import stable_seed

CSV = Path("data/youcook2_validation.csv")
COLUMNS = ("video_id", "start", "end", "text")
SPOKEN_SHARE = 0.7  # share of the words of a sentence that the narrator says at a time
NUM_VAL = 76  # validation videos
AFTER_S = 10  # seconds of a video after its last segment


class Segment(NamedTuple):
    """A step of a real video."""

    video: str
    start: int  # seconds
    end: int  # seconds, exclusive
    text: str


class SentenceStep(Step):
    """A step that is described by one sentence, which is in the field `do`."""

    def fill(self, pattern: str, kind: str) -> str:
        """Returns the sentence, or the words of it that a narrator says.

        Args:
            pattern: a pattern of `NARRATION` decides which words the narrator leaves out. Any other
                pattern gives the whole sentence.
            kind: not used.
        """
        if pattern not in NARRATION:
            return self.do
        rng = random.Random(stable_seed("spoken", self.do, pattern))
        words = [word for word in self.do.split() if rng.random() < SPOKEN_SHARE]
        return " ".join(words) or self.do


class SentenceWorld(World):
    """A world whose steps look like their sentences. `looks` has a vector per word."""

    def prototype(self, step: int, kind: str) -> np.ndarray:
        """Returns the look of a step, a unit vector, float64 [L]."""
        look_L = np.sum(
            [self.looks[word] for word in words_of(self.steps[step].do)], axis=0
        )
        return look_L / np.linalg.norm(look_L)


def words_of(text: str) -> list[str]:
    """Returns the words of a sentence in lower case, without digits and punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def read_segments(path: Path) -> dict[str, list[Segment]]:
    """Returns the segments of each video in time order. Overlaps are cut off.

    Raises:
        DataError: a column is missing.
    """
    segments: dict[str, list[Segment]] = {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = set(COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{path}: must have the columns {', '.join(COLUMNS)}.")
        rows = sorted(reader, key=lambda row: (row["video_id"], float(row["start"])))
    for row in rows:
        if not words_of(row["text"]):
            continue
        own = segments.setdefault(row["video_id"], [])
        free_from = own[-1].end if own else 0
        start, end = (
            max(free_from, round(float(row["start"]))),
            round(float(row["end"])),
        )
        if start < end:
            own.append(Segment(row["video_id"], start, end, row["text"]))
    return {video: own for video, own in segments.items() if own}


def sentence_world(settings: CorpusSettings, sentences: Sequence[str]) -> SentenceWorld:
    """Returns a world whose steps are sentences.

    The vector of a word has a random direction. Its length is an inverse document frequency:
    log(1 + number of sentences / number of sentences with the word).
    """
    frequency = Counter(
        itertools.chain.from_iterable(set(words_of(text)) for text in sentences)
    )
    generator = np.random.default_rng(stable_seed("words", settings.seed))
    looks = {}
    for word in sorted(frequency):
        direction_L = generator.standard_normal(LATENT_SIZE)
        weight = math.log(1 + len(sentences) / frequency[word])
        looks[word] = weight * direction_L / np.linalg.norm(direction_L)
    steps = tuple(SentenceStep(0, text, "", "", "", []) for text in sentences)
    base = make_world(settings)
    return SentenceWorld(settings, steps, (), looks, base.backgrounds, base.basis)


def make_videos(
    world: SentenceWorld, segments: Mapping[str, Sequence[Segment]], seed: int
) -> list[Video]:
    """Returns the videos in a random order, with their narrations."""
    step_of = {step.do: number for number, step in enumerate(world.steps)}
    names = sorted(segments)
    random.Random(stable_seed("order", seed)).shuffle(names)
    videos = []
    for name in names:
        shown = tuple(
            Performance(step_of[segment.text], "", segment.start, segment.end)
            for segment in segments[name]
        )
        num_seconds = shown[-1].end + AFTER_S
        rng = random.Random(stable_seed("video", seed, name))
        captions = narrate(world, shown, num_seconds, rng)
        videos.append(Video(name, 0, num_seconds, shown, captions))
    return videos


def read_corpus(
    path: Path = CSV, num_val: int = NUM_VAL, seed: int = 0
) -> tuple[SentenceWorld, list[Video], list[Video]]:
    """Returns the world, the validation videos and the training videos of a corpus.

    Args:
        path: the file of sentences.
        num_val: validation videos. All others are training videos.
        seed: decides the order of videos, the looks and the narration.
    Raises:
        DataError: a column is missing, or there are too few videos.
    """
    segments = read_segments(path)
    if len(segments) <= num_val:
        raise DataError(
            f"{path}: must have more than {num_val} videos (--num-val), but has {len(segments)}."
        )
    texts = {segment.text for own in segments.values() for segment in own}
    # The results of this corpus depend on the noise, so it must not follow the demo's defaults.
    settings = CorpusSettings(seed=seed, **HALF_ALIGNED.options)
    world = sentence_world(settings, sorted(texts))
    videos = make_videos(world, segments, seed)
    return world, videos[:num_val], videos[num_val:]


def make_corpus(path: Path, out: Path, num_val: int, seed: int) -> None:
    """Writes a corpus to the folder `out`. For the other arguments, see `read_corpus`."""
    world, val, train = read_corpus(path, num_val, seed)
    known = make_vocabulary()
    vocabulary = [*known, *sorted(world.looks.keys() - set(known))]
    write_files(out, world, vocabulary, train, val)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--csv", type=Path, default=CSV, help=f"the sentences ({CSV})")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--num-val",
        type=int,
        default=NUM_VAL,
        help=f"validation videos ({NUM_VAL})",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    return run_command(
        lambda: make_corpus(args.csv, args.out, args.num_val, args.seed),
        interrupt_message="run it again to make the corpus",
    )


if __name__ == "__main__":
    sys.exit(main())
