"""Neighbours to batches: each batch is a sample of one centre's neighbourhood, drawn in the order of the release.

Legend: N videos, V videos per batch, m = floor(N/V) centres and batches, k neighbours asked for, D hidden size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from mmpt.errors import ConfigError, DataError
from mmpt.retrieval.plan import Hardness, Plan
from mmpt.retrieval.retriever import VectorRetriever
from mmpt.utils.log import get_logger
from mmpt.utils.stopwatch import Stopwatch

logger = get_logger(__name__)

MAX_JUDGED_BATCHES = 2000


def choose_centres(num_videos: int, videos_per_batch: int, rng: random.Random) -> list[int]:
    """Draw m = floor(N/V) different positions.

    Raises:
        DataError: fewer videos than one batch needs.
    """
    if num_videos < videos_per_batch:
        raise DataError(
            f"{num_videos} videos are fewer than one batch needs (`num_video_per_batch` is {videos_per_batch}); "
            "list more videos or lower `num_video_per_batch`."
        )
    return rng.sample(range(num_videos), num_videos // videos_per_batch)


def plan_batches(
    neighbours_mk: np.ndarray,
    centres: Sequence[int],
    videos_per_batch: int,
    rng: random.Random,
    keep_centre: bool = False,
) -> list[list[int]]:
    """Return one batch of different positions per centre; at most V, fewer where the candidates are fewer.

    Candidates are the centre and its neighbours, nearest first; more than V are sampled, and the centre may be lost
    in that, as in the release.

    Args:
        neighbours_mk: int64, positions, nearest first; -1 for none.
        keep_centre: always keep the centre and sample V - 1 of the others.
    """
    assert len(neighbours_mk) == len(centres)
    batches = []
    for centre, neighbours in zip(centres, neighbours_mk.tolist(), strict=True):
        others = [position for position in neighbours if position not in (centre, -1)]
        if len(others) < videos_per_batch:
            batches.append([centre, *others])
        elif keep_centre:
            batches.append([centre, *rng.sample(others, videos_per_batch - 1)])
        else:
            batches.append(rng.sample([centre, *others], videos_per_batch))
    return batches


def plan_hardness(vectors_ND: np.ndarray, batches: Sequence[Sequence[int]], rng: random.Random) -> Hardness:
    """Measure a plan on at most `MAX_JUDGED_BATCHES` of its batches (coverage on all of them).

    The mean over pairs comes from the sum s of a batch's n unit vectors: (|s|^2 - n) / (n^2 - n).
    """
    num_videos = len(vectors_ND)
    judged = list(batches) if len(batches) <= MAX_JUDGED_BATCHES else rng.sample(list(batches), MAX_JUDGED_BATCHES)
    judged = [batch for batch in judged if len(batch) > 1]
    at_random = [rng.sample(range(num_videos), len(batch)) for batch in judged]
    covered = np.zeros(num_videos, dtype=bool)
    for batch in batches:
        covered[list(batch)] = True
    return Hardness(
        mean_cosine=_mean_cosine(vectors_ND, judged),
        random_mean_cosine=_mean_cosine(vectors_ND, at_random),
        coverage=float(covered.mean()),
    )


def refresh_plan(
    vectors_ND: np.ndarray,
    ids: Sequence[str],
    *,
    epoch: int,
    videos_per_batch: int,
    num_cands: int,
    retriever: VectorRetriever,
    fingerprint: str,
    keep_centre: bool = False,
    watch: Stopwatch | None = None,
) -> Plan:
    """Plan the batches of an epoch from the vectors of all videos.

    Args:
        vectors_ND: float16 or float32 and finite (the pool says so), in the order of the training list; may be mapped
            from a file.
        ids: N different video ids in the same order.
        epoch: e; all draws come from a generator seeded with e * e.
        num_cands: neighbours asked for each centre (the centre itself is one of them).
        retriever: an empty index; it is filled, trained and searched here.
        fingerprint: what `plan_fingerprint` says of the settings, the list and the weights.
        watch: takes the time of the parts `index`, `search` and `plan`.
    Raises:
        ConfigError: `num_cands` cannot fill a batch.
        DataError: N < V.
    """
    assert len(retriever) == 0, "refresh_plan fills an empty index"
    assert len(set(ids)) == len(ids) == len(vectors_ND)
    if num_cands < videos_per_batch:
        raise ConfigError(
            "retrieval",
            [f"`num_cands` must be at least `num_video_per_batch` ({videos_per_batch}), but is {num_cands}."],
        )
    rng = random.Random(epoch * epoch)
    centres = choose_centres(len(ids), videos_per_batch, rng)
    watch = watch or Stopwatch()
    with watch.timed("index"):
        retriever.add(vectors_ND, ids)
        retriever.finalize_training()
    with watch.timed("search"):
        neighbours_mk, _ = retriever.search(vectors_ND[centres], num_cands)
    with watch.timed("plan"):
        batches = plan_batches(neighbours_mk, centres, videos_per_batch, rng, keep_centre)
        hardness = plan_hardness(vectors_ND, batches, random.Random(epoch * epoch))
        _log_plan(epoch, hardness, batches, videos_per_batch, len(ids))
        listed = tuple(tuple(ids[place] for place in batch) for batch in batches)
    return Plan(epoch, fingerprint, len(ids), listed, hardness)


def _log_plan(epoch: int, hardness: Hardness, batches: list[list[int]], videos_per_batch: int, num_videos: int) -> None:
    short = sum(len(batch) < videos_per_batch for batch in batches)
    logger.info(
        "epoch %d: %d batches (%d short), cosine within a batch %.3f (at random %.3f), %.1f%% of %d videos covered",
        epoch, len(batches), short, hardness.mean_cosine, hardness.random_mean_cosine, 100 * hardness.coverage,
        num_videos,
    )  # fmt: skip


def _mean_cosine(vectors_ND: np.ndarray, batches: Sequence[Sequence[int]]) -> float:
    """Return the mean over batches of the mean cosine of two different members; NaN without batches."""
    means = []
    for batch in batches:
        rows_nD = vectors_ND[list(batch)].astype(np.float64)
        rows_nD /= np.maximum(np.linalg.norm(rows_nD, axis=1, keepdims=True), 1e-12)
        total_D, num_rows = rows_nD.sum(axis=0), len(rows_nD)
        means.append((total_D @ total_D - np.square(rows_nD).sum()) / (num_rows * (num_rows - 1)))
    return float(np.mean(means)) if means else float("nan")
