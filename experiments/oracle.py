"""Prints what random scores and an oracle reach, as a Markdown table in percent.

    python -m experiments.oracle [--corpora half-aligned howto100m]

The oracle knows the look of every word: its vector in the latent space from which the features of
the corpus are made. The vector of a sentence is the sum of the looks of its words. The vector of a
second is its features projected onto the latent space, which removes the noise outside of it. A
model can learn both. All corpora have seed 0.

Legend: T sentences, W clips or windows, S seconds, L latent size.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments import noise
from experiments.corpora import CORPORA, HALF_ALIGNED, HOWTO100M, YOUCOOK, Corpus
from experiments.offsets import Scores, calibrated, recall_at_1
from experiments.youcook_corpus import read_corpus, words_of
from mmpt.endtasks.how2align.data import Sentence, comparisons
from mmpt.endtasks.how2align.evaluation import (
    AlignedVideo,
    How2AlignMetric,
    How2AlignOutputs,
)
from mmpt.evaluators import full_video
from mmpt.evaluators.full_video import Lengths
from mmpt.prepare.demo_corpus.corpus import NUM_ALIGNED, true_alignment, true_clips
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.prepare.demo_corpus.video import Video, make_features, make_video
from mmpt.prepare.demo_corpus.words import CRAFTS, ing_form
from mmpt.prepare.demo_corpus.world import LATENT_SIZE, World, make_world

# The windows of the demo's evaluations.
WINDOW_S = 16  # length of a window
ALIGN_STRIDE_S = 8  # distance of the windows of the alignment


class Reference(NamedTuple):
    """The numbers of the table, as fractions."""

    clip: float
    average: float
    dtw: float
    average_background: float
    dtw_background: float
    alignment_recall: float
    alignment_auc: float


TITLES = (
    "clip R@1",
    "caption average",
    "DTW, calibrated",
    "with background, caption average",
    "DTW, calibrated",
    "alignment recall",
    "alignment AUC",
)
"""Headings of the fields of a `Reference`."""


class Oracle:
    """Computes unit vectors of sentences and seconds in the latent space of the corpus."""

    def __init__(self, world: World):
        self.world = world
        self.looks = dict(world.looks)
        for craft in CRAFTS:
            for verb in craft.verbs:
                if verb in world.looks:
                    self.looks.setdefault(ing_form(verb), world.looks[verb])

    def sentences(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float64 [T, L]. A sentence without any known word has a vector of zeros."""
        sums_TL = np.zeros((len(texts), LATENT_SIZE))
        for row, text in enumerate(texts):
            for word in words_of(text):
                if word in self.looks:
                    sums_TL[row] += self.looks[word]
        return _unit(sums_TL)

    def seconds(self, video: Video) -> np.ndarray:
        """Returns float64 [S, L]."""
        features_SE = make_features(self.world, video).astype(np.float64)
        return _unit(features_SE @ self.world.basis.T)


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, 1e-12)


def validation_videos(corpus: Corpus) -> tuple[World, list[Video]]:
    """Returns the world of a corpus with seed 0, and its validation videos."""
    if corpus.maker == YOUCOOK.maker:
        world, videos, _ = read_corpus()
        return world, videos
    settings = CorpusSettings(**corpus.options)
    made = make_world(settings)
    return made, [make_video(made, "val", index) for index in range(settings.num_val)]


def references(corpus: Corpus) -> tuple[Reference, Reference]:
    """Returns the numbers of random scores and of the oracle."""
    # The oracle's vectors are scored as the vectors of a model are in the demo's evaluations: all
    # captions with all clips, with the windows of all videos, and with the seconds of their video.
    world, videos = validation_videos(corpus)
    oracle = Oracle(world)
    texts: list[str] = []
    clips, windows = [], []
    num_clips, num_windows = [], []
    aligned = []
    for number, video in enumerate(videos):
        seconds_SL = oracle.seconds(video)
        shown = true_clips(world, video)["clips"]
        texts += [clip["text"] for clip in shown]
        clips += [seconds_SL[clip["start"] : clip["end"]].mean(0) for clip in shown]
        starts = range(0, len(seconds_SL), WINDOW_S)
        windows += [seconds_SL[start : start + WINDOW_S].mean(0) for start in starts]
        num_clips.append(len(shown))
        num_windows.append(len(starts))
        if number < NUM_ALIGNED:
            aligned.append(_align(oracle, video, seconds_SL))
    text_TL = oracle.sentences(texts)
    captions = np.array(num_clips)
    without = Scores(_scores(text_TL, clips), Lengths.of(captions), background=False)
    lengths = Lengths.of(captions, np.array(num_windows))
    with_background = Scores(_scores(text_TL, windows), lengths, background=True)
    outputs = How2AlignOutputs(videos=aligned)
    alignment, at_random = (
        How2AlignMetric().compute(outputs),
        How2AlignMetric().chance(outputs),
    )
    one_video = 1 / len(videos)
    chance = Reference(
        clip=1 / len(texts),
        average=one_video,
        dtw=one_video,
        average_background=one_video,
        dtw_background=one_video,
        alignment_recall=at_random["Recall"],
        alignment_auc=at_random["AUC"],
    )
    best = Reference(
        recall_at_1(without.values),
        *_whole_videos(without),
        *_whole_videos(with_background),
        alignment["Recall"],
        alignment["AUC"],
    )
    return chance, best


def _scores(text_TL: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the cosines of all sentences and clips or windows, float32 [T, W]."""
    parts_WL = _unit(np.stack(parts))
    return (text_TL @ parts_WL.T).astype(np.float32)


def _whole_videos(scores: Scores) -> tuple[float, float]:
    """Returns R@1 of the caption average and of DTW with a calibrated constant."""
    average = recall_at_1(full_video.caption_average(scores.values, scores.lengths))
    return average, calibrated(scores, ("DTW",))["DTW-R1"]


def _align(oracle: Oracle, video: Video, seconds_SL: np.ndarray) -> AlignedVideo:
    """Returns the cosines of the sentences and seconds that the alignment compares."""
    sentences = [Sentence(*row) for row in true_alignment(video)]
    num_seconds = len(seconds_SL)
    covered_TS = np.zeros((len(sentences), num_seconds), dtype=bool)
    for start, first, last in comparisons(
        sentences, num_seconds, ALIGN_STRIDE_S, WINDOW_S
    ):
        covered_TS[first:last, start : start + WINDOW_S] = True
    text_TL = oracle.sentences([sentence.text for sentence in sentences])
    is_aligned = [sentence.aligned for sentence in sentences]
    spans_s = [(each.start_s, each.end_s) for each in sentences]
    return AlignedVideo(
        video_id=video.id,
        similarity=np.where(covered_TS, text_TL @ seconds_SL.T, 0),
        covered=covered_TS,
        aligned=np.array(is_aligned, dtype=bool),
        spans_s=np.array(spans_s),
    )


def all_corpora() -> dict[str, Corpus]:
    """Returns all corpora by their names, including the corpora of the experiment on noise."""
    corpora = dict(CORPORA)
    for arm in noise.arms(HOWTO100M):
        if arm.corpus is not None:
            corpora[arm.corpus.name] = arm.corpus
    return corpora


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    corpora = all_corpora()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpora",
        nargs="+",
        choices=sorted(corpora),
        default=[HALF_ALIGNED.name, HOWTO100M.name],
    )
    args = parser.parse_args(argv)
    print(f"| corpus | {' | '.join(TITLES)} |")
    print(f"|---|{'---:|' * len(TITLES)}")
    for name in args.corpora:
        kinds = zip(("random", "oracle"), references(corpora[name]), strict=True)
        for kind, numbers in kinds:
            cells = [f"{100 * number:.1f}" for number in numbers]
            print(f"| {name}, {kind} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
