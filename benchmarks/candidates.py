"""Candidate search of the epoch refresh: all centres at once (ours) and one query at a time.

    python benchmarks/candidates.py                     # 100,000 videos, under a minute
    python benchmarks/candidates.py --videos 1200000    # HowTo100M: 6 GB of memory, minutes

Vectors are clusters in a 48-dimensional subspace plus noise, in float16 as the pool keeps them.
Both sides search the same lists of the same index, as many as `nprobe: auto` finds necessary. One
at a time is measured on a sample of the centres, another one each round, and scaled to all. Recall
is measured against an exact search of faiss.
"""

import logging
import statistics
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
    """Return float16 [num, dim]."""
    vectors = np.empty((num, dim), dtype=np.float16)
    for begin, block in vector_blocks(num, dim, BLOCK, seed):
        vectors[begin : begin + len(block)] = block
    return vectors


def one_by_one(index: Any, queries: np.ndarray, k: int) -> np.ndarray:
    """Searches as the release does, one centre after another.

    The release also rebuilds the direct map every time.
    """
    return np.concatenate(
        [index.search(queries[row : row + 1], k)[1] for row in range(len(queries))]
    )


def exact_search(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return the positions of the true neighbours."""
    begins = range(0, len(vectors), BLOCK)
    blocks = (vectors[begin : begin + BLOCK].astype(np.float32) for begin in begins)
    return knn_ground_truth(queries, blocks, k)[1]


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Return the mean share of the true neighbours that were found."""
    pairs = zip(found, true, strict=True)
    return float(
        np.mean([len(np.intersect1d(ours, theirs)) / len(theirs) for ours, theirs in pairs])
    )


def main() -> None:
    """Build, search in turns, compare, record."""
    parser = Options(__doc__)
    parser.number("--videos", 100_000)
    parser.number("--dim", 768)
    parser.number("--batch", 64, "videos per batch; there are videos/batch centres")
    parser.number("--single", 300, "centres that are searched one by one, each round")
    parser.number("--cands", 192)
    parser.number("--centroids", 512)
    parser.number("--rounds", 5)
    parser.number("--seed", 0, least=0)
    args = parser.parse_args()
    if max(args.batch, args.cands) > args.videos:
        raise UserError(
            f"--batch and --cands must be at most --videos ({args.videos}), but are {args.batch} "
            f"and {args.cands}."
        )
    logging.getLogger().setLevel(logging.INFO)

    vectors = make_vectors(args.videos, args.dim, args.seed)
    reset_peak()
    rng = np.random.default_rng(args.seed)
    centres = rng.choice(args.videos, args.videos // args.batch, replace=False)
    queries = vectors[centres].astype(np.float32)
    retriever = VectorRetriever(args.dim, args.centroids, seed=args.seed)
    build_s, _ = timed(build, retriever, vectors)
    first_s, (found, _) = timed(retriever.search, queries, args.cands)
    index = retriever.index  # it has kept the number of lists of this search

    retriever.nprobe = retriever.last_nprobe
    ours, single, same = [], [], []
    for _ in range(args.rounds):
        ours.append(timed(retriever.search, queries, args.cands)[0])
        rows = rng.choice(len(queries), min(args.single, len(queries)), replace=False)
        seconds, singly = timed(one_by_one, index, queries[rows], args.cands)
        single.append(seconds * len(queries) / len(rows))
        same.append((found[rows] == singly).mean())
    sample = slice(0, args.single)
    peak = peak_memory() / MB
    true = exact_search(vectors, queries[sample], args.cands)
    lists = f"{retriever.last_nprobe} of {retriever.num_lists} lists"
    retriever.nprobe = 1
    released = recall(retriever.search(queries[sample], args.cands)[0], true)
    size = f"{args.videos:,} x {args.dim}, {len(queries):,} centres"
    note = f"{lists}, {statistics.mean(same):.4%} of neighbours the same"
    record(
        [
            Figure(f"candidates: search, {size}", "s", ours=ours, plain=single, note=note),
            Figure("candidates: train and fill the lists", "s", ours=[build_s]),
            Figure("candidates: decide nprobe and search", "s", ours=[first_s]),
            Figure("candidates: all of it", "s", ours=[build_s + first_s]),
            Figure("candidates: peak memory, vectors included", "MB", ours=[peak]),
            Figure(f"candidates: recall@{args.cands}", "", ours=[recall(found[sample], true)]),
            Figure(f"candidates: recall@{args.cands}, nprobe 1 (released)", "", ours=[released]),
        ]
    )


def build(retriever: VectorRetriever, vectors: np.ndarray) -> None:
    """Train and fill the index."""
    retriever.add(vectors, [str(number) for number in range(len(vectors))])
    retriever.finalize_training()


if __name__ == "__main__":
    run_script(main)
