"""Turns neighbours into batches. Each batch is a sample of the neighbourhood of one video.

Legend: N videos, V videos per batch, m = floor(N/V) centres and batches, k neighbours, D hidden
size.
"""

import random
from collections.abc import Sequence

import numpy as np

from mmpt.retrieval.plan import Plan
from mmpt.retrieval.retriever import VectorRetriever
from mmpt.utils.log import get_logger
from mmpt.utils.stopwatch import Stopwatch

logger = get_logger(__name__)

MAX_JUDGED_BATCHES = 2000
"""Largest number of batches on which the hardness of a plan is measured."""


def plan_batches(
    neighbours_mk: np.ndarray, centres: Sequence[int], videos_per_batch: int, rng: random.Random
) -> list[list[int]]:
    """Returns one batch of different positions for each centre.

    The candidates are the centre and its neighbours, nearest first. If there are more than V of
    them, V are drawn at random. The centre may then be left out, as in the release. If there are
    fewer, the batch is short.

    Args:
        neighbours_mk: int64, positions, nearest first, -1 where fewer were found.
        centres: m positions.
        videos_per_batch: V.
        rng: draws a number for every batch that is sampled.
    """
    assert len(neighbours_mk) == len(centres)
    batches = []
    for centre, neighbours in zip(centres, neighbours_mk.tolist(), strict=True):
        others = [position for position in neighbours if position not in (centre, -1)]
        batch = [centre, *others]
        if len(batch) > videos_per_batch:
            batch = rng.sample(batch, videos_per_batch)
        batches.append(batch)
    return batches


def plan_hardness(
    vectors_ND: np.ndarray, batches: Sequence[Sequence[int]], rng: random.Random
) -> dict[str, float]:
    """Measures how similar the videos of a batch are.

    Returns:
        mean_cosine: mean cosine of two different videos of one batch. It is measured on at most
            `MAX_JUDGED_BATCHES` batches.
        random_mean_cosine: the same for random batches of the same sizes.
        coverage: share of all videos that occur in at least one batch.
    """
    num_videos = len(vectors_ND)
    judged = list(batches)
    if len(judged) > MAX_JUDGED_BATCHES:
        judged = rng.sample(judged, MAX_JUDGED_BATCHES)
    judged = [batch for batch in judged if len(batch) > 1]
    at_random = [rng.sample(range(num_videos), len(batch)) for batch in judged]
    return {
        "mean_cosine": _mean_cosine(vectors_ND, judged),
        "random_mean_cosine": _mean_cosine(vectors_ND, at_random),
        "coverage": len(set().union(*batches)) / num_videos,
    }


def refresh_plan(
    vectors_ND: np.ndarray,
    ids: Sequence[str],
    *,
    epoch: int,
    videos_per_batch: int,
    num_cands: int,
    retriever: VectorRetriever,
    fingerprint: str,
    list_fingerprint: str,
    watch: Stopwatch,
) -> Plan:
    """Plans the batches of an epoch from the vectors of all videos.

    Args:
        vectors_ND: float16 or float32, finite (the pool checks this), in the order of the training
            list.
        ids: N different video ids in the same order, which the retriever stores.
        epoch: e. All draws come from a generator seeded with e * e.
        num_cands: neighbours searched for each centre. The centre itself is one of them.
        retriever: an empty index. It is filled, trained and searched here.
        fingerprint: `plan_fingerprint` of the settings, the list and the weights.
        list_fingerprint: `ids_fingerprint` of the list.
        watch: measures the time of the parts `index`, `search` and `plan`.
    """
    # The order of the draws is part of the result: first all centres, then each batch in turn.
    assert len(retriever) == 0, "refresh_plan fills an empty index"
    assert len(set(ids)) == len(ids) == len(vectors_ND)
    assert num_cands >= videos_per_batch, "checked by the config"
    rng = random.Random(epoch * epoch)
    centres = rng.sample(range(len(ids)), len(ids) // videos_per_batch)
    with watch.timed("index"):
        retriever.add(vectors_ND, ids)
        retriever.finalize_training()
    with watch.timed("search"):
        neighbours_mk, _ = retriever.search(vectors_ND[centres], num_cands)
    with watch.timed("plan"):
        batches = plan_batches(neighbours_mk, centres, videos_per_batch, rng)
        hardness = plan_hardness(vectors_ND, batches, random.Random(epoch * epoch))
        num_short = sum(len(batch) < videos_per_batch for batch in batches)
        logger.info(
            f"epoch {epoch}: {len(batches)} batches ({num_short} short), cosine within a batch "
            f"{hardness['mean_cosine']:.3f} (at random {hardness['random_mean_cosine']:.3f}), "
            f"{hardness['coverage']:.1%} of {len(ids)} videos covered"
        )
    planned = tuple(tuple(batch) for batch in batches)
    return Plan(epoch, fingerprint, list_fingerprint, len(ids), planned, hardness)


def _mean_cosine(vectors_ND: np.ndarray, batches: Sequence[Sequence[int]]) -> float:
    """Returns the mean over batches of the mean cosine of two members, or NaN without batches.

    Let s be the sum of the n unit vectors of a batch. |s|^2 is the sum of all n^2 products, n of
    which multiply a vector by itself. So the mean over the pairs is (|s|^2 - n) / (n^2 - n),
    and no single pair is computed.
    """
    means = []
    for batch in batches:
        rows_nD = vectors_ND[list(batch)].astype(np.float64)
        rows_nD /= np.maximum(np.linalg.norm(rows_nD, axis=1, keepdims=True), 1e-12)
        total_D, num_rows = rows_nD.sum(axis=0), len(rows_nD)
        num_pairs = num_rows * (num_rows - 1)
        means.append((total_D @ total_D - np.square(rows_nD).sum()) / num_pairs)
    return float(np.mean(means)) if means else float("nan")
