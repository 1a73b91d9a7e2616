"""The corpora of the experiments, and the statistics of their narrations.

The corpora are made by `mmpt make-demo-data` with the options below, or from the sentences of
YouCook2. Two published samples of HowTo100M say how much of a narration fits the video:

- About half of 400 random pairs of clip and narration do not fit (Miech et al. 2020,
  arXiv 1912.06430). The corpus `half-aligned` is like this.
- In 80 videos that were labelled by hand, about 30 % of the sentences can be aligned with the video
  at all, and about 15 % are aligned without any change of their times (Han et al. 2022,
  arXiv 2204.02968). The corpus `howto100m`, which is the demo's default, is like this.

Other numbers of HowTo100M are not published, such as the distribution of the offsets. The corpora
use guesses for these.
"""

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.prepare.demo_corpus.video import Video, make_video
from mmpt.prepare.demo_corpus.world import make_world


@dataclass(frozen=True)
class Corpus:
    """A kind of corpus: the command and options that make it. The seed comes from the run."""

    name: str
    """Name in tables and paths."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the command that makes it, other than `out` and `seed`."""
    maker: tuple[str, ...] = ("mmpt", "make-demo-data")
    """The module that makes the corpus, and its first arguments."""

    @property
    def key(self) -> str:
        """Short hash of how the corpus is made, without its seed and its name."""
        how = json.dumps([self.maker, dict(self.options)], sort_keys=True)
        return hashlib.sha256(how.encode()).hexdigest()[:12]

    def option(self, name: str) -> Any:
        """Returns an option of the corpus, which is the demo's default unless it is given."""
        return self.options.get(name, getattr(CorpusSettings, name))

    def command(self, out: Path, seed: int) -> list[str]:
        """Returns the arguments of Python that make the corpus in the folder `out`."""
        command = ["-m", *self.maker, "--out", str(out), "--seed", str(seed)]
        for name, value in self.options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        return command

    def with_options(self, name: str, **options: Any) -> "Corpus":
        """Returns a copy with another name and some other options."""
        return Corpus(name, {**self.options, **options}, self.maker)


HOWTO100M = Corpus(
    "howto100m", {"irrelevant": 0.7, "omit": 0.6, "misalign": 0.5, "max_offset": 20.0}
)
"""The default corpus of the demo. The options are written out, so that `key` depends on them."""
HALF_ALIGNED = Corpus(
    "half-aligned",
    {"irrelevant": 0.35, "omit": 0.15, "misalign": 0.4, "max_offset": 12.0},
)
YOUCOOK = Corpus("youcook2", maker=("experiments.youcook_corpus",))
CORPORA = {corpus.name: corpus for corpus in (HOWTO100M, HALF_ALIGNED, YOUCOOK)}


def narration_statistics(videos: Sequence[Video]) -> dict[str, float]:
    """Returns statistics of narrations, of which some are published for HowTo100M.

    Returns:
        alignable: share of the captions that are about a step of the video.
        aligned: share of the captions whose middle is in the time of their step.
        offset_s: median distance of the other alignable captions from their step, in seconds.
        repeated: share of the captions whose text also occurs in another video.
        per_minute: captions per minute of video.
    """
    num_captions = num_alignable = num_aligned = num_repeated = 0
    offsets = []
    videos_with = Counter[str]()
    for video in videos:
        videos_with.update({caption.text for caption in video.captions})
    for video in videos:
        for caption in video.captions:
            num_captions += 1
            num_repeated += videos_with[caption.text] > 1
            if caption.about is None:
                continue
            num_alignable += 1
            shown = video.performances[caption.about]
            middle = (caption.start + caption.end) / 2
            offset = max(shown.start - middle, middle - shown.end)
            if offset > 0:
                offsets.append(offset)
            else:
                num_aligned += 1
    minutes = sum(video.num_seconds for video in videos) / 60
    return {
        "alignable": num_alignable / num_captions,
        "aligned": num_aligned / num_captions,
        "offset_s": statistics.median(offsets) if offsets else 0.0,
        "repeated": num_repeated / num_captions,
        "per_minute": num_captions / minutes,
    }


def demo_videos(corpus: Corpus, count: int, seed: int = 0) -> list[Video]:
    """Returns the first training videos of a corpus that `mmpt make-demo-data` makes."""
    world = make_world(CorpusSettings(seed=seed, **corpus.options))
    return [make_video(world, "train", index) for index in range(count)]
