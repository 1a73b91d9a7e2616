"""Computes the statistics of the captions of one shard: word pieces and times.

Legend: V videos of the shard, C captions of all of them, W word-piece slots of a caption.
"""

from collections.abc import Sequence

import numpy as np

from mmpt.prepare.check.measures import caption_seconds, num_repeated, num_true
from mmpt.prepare.check.plausible import LONG
from mmpt.prepare.check.shard_report import ShardReport
from mmpt.prepare.check.statistics import SPAN
from mmpt.shards.shardedtensor import ShardedTensor


def read_pieces(report: ShardReport, pieces: ShardedTensor) -> None:
    """Computes the statistics of word pieces that need no vocabulary."""
    statistics = report.statistics
    owners_C = report.owners(pieces)
    listed_C = report.listed_V[owners_C]
    counts_C = (pieces.data >= 0).sum(axis=1)  # padding is negative
    listed_counts = counts_C[listed_C]
    statistics.pieces = int(listed_counts.sum())
    statistics.empty = num_true(listed_counts == 0)
    statistics.tallies["word pieces of a caption"].add(listed_counts)
    below_CW = pieces.data < -1
    below_C = below_CW.any(axis=1)
    report.add_damage(pieces, owners_C[below_C], "captions with ids below -1")
    # Equal captions, and videos with equal captions.
    worded_C = listed_C & (counts_C > 0)
    captions = [hash(row.tobytes()) for row in pieces.data[worded_C]]
    statistics.captions_alike = num_repeated(captions)
    videos = np.unique(owners_C[worded_C]).tolist()
    texts = [hash(pieces[video].tobytes()) for video in videos]
    statistics.texts_alike = num_repeated(texts)


def read_vocabulary(
    report: ShardReport, pieces: ShardedTensor, vocabulary: Sequence[str]
) -> None:
    """Counts word pieces by kind, and reports ids outside the vocabulary."""
    statistics = report.statistics
    owners_C = report.owners(pieces)
    listed_C = report.listed_V[owners_C]
    size = len(vocabulary)
    unknown_CW = pieces.data >= size
    known_CW = (pieces.data >= 0) & ~unknown_CW
    counted_CW = known_CW & listed_C[:, None]
    ids = pieces.data[counted_CW]
    # Look up the kind of every piece in a table.
    names = np.array(vocabulary, dtype=str)
    is_unk = names == "[UNK]"
    is_inside = np.char.startswith(names, "##")
    statistics.unk = num_true(is_unk[ids])
    statistics.inside = num_true(is_inside[ids])
    statistics.unknown_pieces = num_true(unknown_CW[listed_C])
    damaged_C = unknown_CW.any(axis=1)
    what = f"captions with ids that the vocabulary of {size} pieces does not have"
    report.add_damage(pieces, owners_C[damaged_C], what)


def read_times(
    report: ShardReport, times: ShardedTensor, seconds_V: np.ndarray
) -> None:
    """Computes the statistics of captions and their times, and reports damaged times.

    Args:
        seconds_V: length of every video in seconds.
    """
    statistics = report.statistics
    counts_V = times.lengths()
    uncaptioned_V = report.listed_V & (counts_V == 0)
    statistics.without_captions = num_true(uncaptioned_V)
    statistics.captions = int(counts_V[report.listed_V].sum())
    owners_C = report.owners(times)
    finite_C = np.isfinite(times.data).all(axis=1)
    report.add_damage(
        times, owners_C[~finite_C], "caption times that are NaN or infinite"
    )
    # Everything below is about the finite times of listed videos.
    used_C = report.listed_V[owners_C] & finite_C
    starts_C = times.data[used_C, 0]
    ends_C = times.data[used_C, 1]
    owners_C = owners_C[used_C]
    lengths_C = seconds_V[owners_C]  # of the caption's video
    differences_C = ends_C.astype(np.float64) - starts_C
    durations_C = np.maximum(differences_C, 0)
    _count_times(report, starts_C, ends_C, owners_C, lengths_C)
    _compare_spans(report, starts_C, durations_C, owners_C, lengths_C)
    # A caption counts at most as long as its video. Otherwise, a single wrong end would
    # outweigh all other captions.
    counted_C = np.minimum(durations_C, lengths_C)
    inside_V, covered_V = caption_seconds(starts_C, ends_C, owners_C, seconds_V)
    statistics.spoken_s = float(counted_C.sum())
    statistics.inside_s = float(inside_V.sum())
    statistics.covered_s = float(covered_V.sum())
    nonempty_V = report.listed_V & (seconds_V > 0)
    lengths_s = seconds_V[nonempty_V]
    rates = 60.0 * counts_V[nonempty_V] / lengths_s
    shares = covered_V[nonempty_V] / lengths_s
    tallies = statistics.tallies
    tallies["captions per minute"].add(rates)
    tallies["seconds of a caption"].add(counted_C)
    tallies["share of a video with captions"].add(shares)


def _count_times(
    report: ShardReport,
    starts_C: np.ndarray,
    ends_C: np.ndarray,
    owners_C: np.ndarray,
    lengths_C: np.ndarray,
) -> None:
    """Counts captions with wrong times.

    Args:
        starts_C: start times in seconds.
        ends_C: end times in seconds.
        owners_C: the video of each caption.
        lengths_C: length of this video in seconds.
    """
    statistics = report.statistics
    statistics.reversed = num_true(ends_C < starts_C)
    statistics.instant = num_true(ends_C == starts_C)
    statistics.negative = num_true(starts_C < 0)
    statistics.late = num_true(starts_C >= lengths_C)
    is_earlier = starts_C[1:] < starts_C[:-1]
    is_same_video = owners_C[1:] == owners_C[:-1]
    statistics.unordered = num_true(is_earlier & is_same_video)


def _compare_spans(
    report: ShardReport,
    starts_C: np.ndarray,
    durations_C: np.ndarray,
    owners_C: np.ndarray,
    lengths_C: np.ndarray,
) -> None:
    """Compares the time from the first to the last caption of each video with its length.

    Args:
        starts_C: start times in seconds.
        durations_C: durations in seconds.
        owners_C: the video of each caption, non-decreasing.
        lengths_C: length of this video in seconds.
    """
    statistics = report.statistics
    is_first_C = np.diff(owners_C, prepend=-1) != 0
    first_C = np.flatnonzero(is_first_C)  # the first caption of each video
    if not len(first_C):
        return
    lengths_V = np.maximum(lengths_C[first_C], 1)
    first_starts_V = np.minimum.reduceat(starts_C, first_C)
    last_starts_V = np.maximum.reduceat(starts_C, first_C)
    last_ends_V = np.maximum.reduceat(starts_C + durations_C, first_C)
    outlasted_V = last_ends_V - first_starts_V > LONG * lengths_V
    statistics.outlasted = num_true(outlasted_V)
    early_V = (last_ends_V > 0) & (last_ends_V < 0.1 * lengths_V)
    statistics.early = num_true(early_V)
    # The span that `diagnose_times` uses. A single end may be wrong, so the last start plus
    # the shortest duration replaces the last end.
    spans_V = last_starts_V - first_starts_V
    spans_V += np.minimum.reduceat(durations_C, first_C)
    factors_V = np.maximum(spans_V, 1e-4) / lengths_V
    statistics.tallies[SPAN].add(np.log10(factors_V))
