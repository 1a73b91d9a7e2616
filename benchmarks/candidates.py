"""Search for the candidates of a refresh: all centres at once (ours) and one query at a time.

    python benchmarks/candidates.py                     # 100,000 videos, under a minute
    python benchmarks/candidates.py --videos 1200000    # HowTo100M: 6 GB of memory, minutes

A refresh looks for the nearest neighbours of randomly chosen videos, the centres. The vectors here
are clusters in a 48-dimensional subspace with noise, in float16 as in the pool. Both sides
search the same index and the same number of its lists, which is the number that `nprobe: auto`
chooses. The plain side searches a sample of the centres, which differs from round to round, and its
time is scaled to all centres. Recall is measured against an exact search by faiss.
"""

import logging
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
from faiss.contrib.exhaustive_search import knn_ground_truth

from full_size_data import vector_blocks
from mmpt.errors import UserError
from mmpt.retrieval import VectorRetriever
from process_memory import MB, peak_memory, reset_peak
from results import Figure, Options, record, run_script, timed

BLOCK = 100_000


def make_vectors(num: int, dim: int, seed: int) -> np.ndarray:
    """Returns generated vectors, float16 [num, dim]."""
    vectors = np.empty((num, dim), dtype=np.float16)
    for begin, block in vector_blocks(num, dim, BLOCK, seed):
        vectors[begin : begin + len(block)] = block
    return vectors


def build(retriever: VectorRetriever, vectors: np.ndarray) -> None:
    """Trains the index and fills its lists."""
    retriever.add(vectors)
    retriever.finalize_training()


def search_one_by_one(index: Any, queries: np.ndarray, k: int) -> np.ndarray:
    """Returns the positions of neighbours [N, k], searching for one query at a time.

    The release does the same. In addition, it rebuilds the direct map for every query.
    """
    found = []
    for query in queries:
        _, positions = index.search(query[None], k)
        found.append(positions)
    return np.concatenate(found)


def search_exactly(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Returns the positions of the true neighbours [N, k]."""

    def blocks() -> Iterator[np.ndarray]:
        for begin in range(0, len(vectors), BLOCK):
            yield vectors[begin : begin + BLOCK].astype(np.float32)

    _, positions = knn_ground_truth(queries, blocks(), k)
    return positions


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Returns the mean share of the true neighbours that were found."""
    shares = []
    for ours, theirs in zip(found, true, strict=True):
        num_common = len(np.intersect1d(ours, theirs))
        shares.append(num_common / len(theirs))
    return float(np.mean(shares))


def measure(args: Any) -> list[Figure]:
    """Builds an index, searches it in both ways in turns, and returns the figures."""
    vectors = make_vectors(args.videos, args.dim, args.seed)
    reset_peak()
    rng = np.random.default_rng(args.seed)
    num_centres = args.videos // args.batch
    centres = rng.choice(args.videos, num_centres, replace=False)
    queries = vectors[centres].astype(np.float32)
    retriever = VectorRetriever(args.dim, args.centroids, seed=args.seed)
    build_s, _ = timed(build, retriever, vectors)
    first_s, (found, _) = timed(retriever.search, queries, args.cands)
    # The index keeps the number of lists that this search chose.
    index = retriever.index

    # Later searches use the number of lists of the first one, without choosing it again.
    retriever.nprobe = retriever.last_nprobe
    num_sampled = min(args.single, num_centres)
    ours, single, same = [], [], []
    for _ in range(args.rounds):
        seconds, _ = timed(retriever.search, queries, args.cands)
        ours.append(seconds)
        rows = rng.choice(num_centres, num_sampled, replace=False)
        seconds, singly = timed(search_one_by_one, index, queries[rows], args.cands)
        single.append(seconds * num_centres / num_sampled)
        is_same = found[rows] == singly
        same.append(is_same.mean())
    peak = peak_memory() / MB

    # Recall of our search, and of a search of one list only, as in the release.
    sample = queries[: args.single]
    true = search_exactly(vectors, sample, args.cands)
    our_recall = recall(found[: args.single], true)
    lists = f"{retriever.last_nprobe} of {retriever.num_lists} lists"
    retriever.nprobe = 1
    found_in_one_list, _ = retriever.search(sample, args.cands)
    released = recall(found_in_one_list, true)
    size = f"{args.videos:,} x {args.dim}, {num_centres:,} centres"
    note = f"{lists}, {statistics.mean(same):.4%} of neighbours the same"
    return [
        Figure(f"candidates: search, {size}", "s", ours=ours, plain=single, note=note),
        Figure("candidates: train and fill the lists", "s", ours=[build_s]),
        Figure("candidates: decide nprobe and search", "s", ours=[first_s]),
        Figure("candidates: all of it", "s", ours=[build_s + first_s]),
        Figure("candidates: peak memory, vectors included", "MB", ours=[peak]),
        Figure(f"candidates: recall@{args.cands}", "", ours=[our_recall]),
        Figure(
            f"candidates: recall@{args.cands}, nprobe 1 (released)", "", ours=[released]
        ),
    ]


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.number("--videos", 100_000, "number of vectors")
    parser.number("--dim", 768, "length of a vector")
    parser.number("--batch", 64, "videos per batch; there are videos/batch centres")
    parser.number("--single", 300, "centres that the plain side searches in each round")
    parser.number("--cands", 192, "neighbours of each centre")
    parser.number("--centroids", 512, "lists of the index")
    parser.number("--rounds", 5)
    parser.number("--seed", 0, least=0)
    args = parser.parse_args()
    if max(args.batch, args.cands) > args.videos:
        raise UserError(
            f"--batch and --cands must be at most --videos ({args.videos}), but are {args.batch} "
            f"and {args.cands}."
        )
    logging.getLogger().setLevel(logging.INFO)
    record(measure(args), args.out)


if __name__ == "__main__":
    run_script(main)
