"""Candidate search of the epoch refresh: all centres at once (ours) beside one query at a time on the same index.

    python benchmarks/candidates.py                     # 100,000 videos, under a minute
    python benchmarks/candidates.py --videos 1200000    # the size of HowTo100M: 7 GB of memory, under 6 minutes

Vectors are clusters in a 48-dimensional subspace plus noise, in float16 as the pool keeps them. Both sides search the
same lists, as many as `nprobe: auto` finds necessary; one at a time is measured on a sample of the centres, drawn anew
each round, and scaled to all. Recall is against a brute-force search of faiss.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import faiss
import numpy as np

from mmpt.retrieval import VectorRetriever
from results import Figure, record

BLOCK = 100_000


def make_vectors(num: int, dim: int, seed: int, rank: int = 48, cluster_size: int = 200) -> np.ndarray:
    """Return float16 [num, dim]."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((rank, dim), dtype=np.float32) / np.float32(rank**0.5)
    centres = rng.standard_normal((max(1, num // cluster_size), rank), dtype=np.float32)
    vectors = np.empty((num, dim), dtype=np.float16)
    for begin in range(0, num, BLOCK):
        part = vectors[begin : begin + BLOCK]
        inner = centres[rng.integers(0, len(centres), len(part))]
        inner += np.float32(0.5) * rng.standard_normal(inner.shape, dtype=np.float32)
        part[:] = inner @ basis + np.float32(0.1) * rng.standard_normal(part.shape, dtype=np.float32)
    return vectors


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and result."""
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


def same_in_faiss(retriever: VectorRetriever) -> Any:
    """Return a faiss index of the same lists, which holds its own copy of the vectors."""
    ivf = retriever.inverted_file
    assert ivf.centroids is not None, "the benchmark's index has lists"
    quantiser = faiss.IndexFlatL2(retriever.hidden_size)
    quantiser.add(ivf.centroids.vectors)
    index: Any = faiss.IndexIVFFlat(quantiser, retriever.hidden_size, retriever.num_lists)
    for which in range(retriever.num_lists):
        positions = np.ascontiguousarray(ivf.lists.positions[which])
        codes = ivf.lists.read(positions).view(np.uint8)
        index.invlists.add_entries(which, len(positions), faiss.swig_ptr(positions), faiss.swig_ptr(codes))
    index.ntotal = len(retriever)
    index.nprobe = retriever.last_nprobe
    return index


def one_by_one(index: Any, queries: np.ndarray, k: int) -> np.ndarray:
    """Search as the release does, one centre after another (less its rebuilding of the direct map every time)."""
    return np.concatenate([index.search(queries[row : row + 1], k)[1] for row in range(len(queries))])


def brute_force(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return the positions of the true neighbours."""
    index = faiss.IndexFlatL2(vectors.shape[1])
    costs: np.ndarray = np.empty((len(queries), 0), np.float32)
    positions: np.ndarray = np.empty((len(queries), 0), np.int64)
    for begin in range(0, len(vectors), BLOCK):
        index.reset()
        index.add(vectors[begin : begin + BLOCK].astype(np.float32))
        fresh_costs, fresh = index.search(queries, k)
        costs, positions = np.hstack([costs, fresh_costs]), np.hstack([positions, fresh + begin])
        order = np.argsort(costs, axis=1, kind="stable")[:, :k]
        costs, positions = (np.take_along_axis(array, order, axis=1) for array in (costs, positions))
    return positions


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Return the mean share of the true neighbours that were found."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, true, strict=True)]))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--batch", type=int, default=64, help="videos per batch; there are videos/batch centres")
    parser.add_argument("--single", type=int, default=300, help="centres that are searched one by one, each round")
    parser.add_argument("--cands", type=int, default=192)
    parser.add_argument("--centroids", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)

    vectors = make_vectors(args.videos, args.dim, args.seed)
    rng = np.random.default_rng(args.seed)
    centres = rng.choice(args.videos, args.videos // args.batch, replace=False)
    queries = vectors[centres].astype(np.float32)
    retriever = VectorRetriever(args.dim, args.centroids, seed=args.seed)
    build_s, _ = timed(lambda: build(retriever, vectors))
    first_s, (found, _) = timed(lambda: retriever.search(queries, args.cands))
    index = same_in_faiss(retriever)

    retriever.nprobe = retriever.last_nprobe
    ours, single, same = [], [], []
    for _ in range(args.rounds):
        seconds, _ = timed(lambda: retriever.search(queries, args.cands))
        ours.append(seconds)
        rows = rng.choice(len(queries), min(args.single, len(queries)), replace=False)
        seconds, singly = timed(partial(one_by_one, index, queries[rows], args.cands))
        single.append(seconds * len(queries) / len(rows))
        same.append((found[rows] == singly).mean())
    sample = slice(0, args.single)
    true = brute_force(vectors, queries[sample], args.cands)
    retriever.nprobe = 1
    released = recall(retriever.search(queries[sample], args.cands)[0], true)
    size = f"{args.videos:,} x {args.dim}, {len(queries):,} centres"
    note = f"{index.nprobe} of {index.nlist} lists, {statistics.mean(same):.4%} of neighbours the same"
    record(
        [
            Figure(f"candidates: search, {size}", "s", ours=ours, plain=single, note=note),
            Figure("candidates: train and fill the lists", "s", ours=[build_s]),
            Figure("candidates: decide nprobe and search", "s", ours=[first_s]),
            Figure("candidates: all of it", "s", ours=[build_s + first_s]),
            Figure(f"candidates: recall@{args.cands}", "", ours=[recall(found[sample], true)]),
            Figure(f"candidates: recall@{args.cands}, nprobe 1 (released)", "", ours=[released]),
        ]
    )


def build(retriever: VectorRetriever, vectors: np.ndarray) -> None:
    """Train and fill the index."""
    retriever.add(vectors, [str(number) for number in range(len(vectors))])
    retriever.finalize_training()


if __name__ == "__main__":
    main()
