"""Candidate search of the epoch refresh: all centres at once (ours) beside one query at a time on the same index.

    python benchmarks/candidates.py                                  # 100,000 videos, under two minutes on 2 cores
    python benchmarks/candidates.py --videos 1200000 --queries 2000  # the size of HowTo100M

Vectors are clusters in a 48-dimensional subspace plus noise. Both search the same lists, as many as `nprobe: auto`
finds necessary; recall is against a brute-force search of faiss.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from mmpt.retrieval import VectorRetriever


def make_vectors(num: int, dim: int, seed: int, rank: int = 48, cluster_size: int = 200) -> np.ndarray:
    """Return float32 [num, dim]."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((rank, dim), dtype=np.float32) / np.float32(rank**0.5)
    centres = rng.standard_normal((max(1, num // cluster_size), rank), dtype=np.float32)
    vectors = np.empty((num, dim), dtype=np.float32)
    for begin in range(0, num, 100_000):
        part = vectors[begin : begin + 100_000]
        inner = centres[rng.integers(0, len(centres), len(part))]
        inner += np.float32(0.5) * rng.standard_normal(inner.shape, dtype=np.float32)
        part[:] = inner @ basis + np.float32(0.1) * rng.standard_normal(part.shape, dtype=np.float32)
    return vectors


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and result."""
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


def one_by_one(index: Any, queries: np.ndarray, k: int) -> np.ndarray:
    """Search as the release does, one centre after another (less its rebuilding of the direct map every time)."""
    return np.concatenate([index.search(queries[row : row + 1], k)[1] for row in range(len(queries))])


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Return the mean share of the true neighbours that were found."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, true, strict=True)]))


def report(what: str, seconds: list[float], num_queries: int) -> float:
    """Print median, spread and rate; return the median."""
    median = statistics.median(seconds)
    print(f"{what:<34} {median:8.3f} s  ({min(seconds):.3f} to {max(seconds):.3f})  {num_queries / median:9.0f}/s")
    return median


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--batch", type=int, default=64, help="videos per batch; there are videos/batch centres")
    parser.add_argument("--queries", type=int, help="search only that many of the centres")
    parser.add_argument("--cands", type=int, default=192)
    parser.add_argument("--centroids", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)

    vectors = make_vectors(args.videos, args.dim, args.seed)
    centres = np.random.default_rng(args.seed).choice(args.videos, args.videos // args.batch, replace=False)
    queries = vectors[centres[: args.queries]]
    size = f"{args.videos:,} x {args.dim}, {len(queries):,} centres, {args.cands} candidates"
    print(f"{size}, {args.centroids} lists, {faiss.omp_get_max_threads()} threads")
    auto = VectorRetriever(args.dim, args.centroids, seed=args.seed)
    auto.add(vectors, [str(number) for number in range(args.videos)])
    print(f"{'train and fill the index':<34} {timed(auto.finalize_training)[0]:8.3f} s")
    whole, (with_auto, _) = timed(lambda: auto.search(queries, args.cands))
    print(f"{'search, deciding nprobe':<34} {whole:8.3f} s")

    auto.nprobe = auto.last_nprobe
    auto.index.nprobe = auto.last_nprobe
    ours, single = [], []
    for _ in range(args.repeats):
        seconds, (found, _) = timed(lambda: auto.search(queries, args.cands))
        ours.append(seconds)
        seconds, found_singly = timed(lambda: one_by_one(auto.index, queries, args.cands))
        single.append(seconds)
    baseline = report("one query at a time (faiss)", single, len(queries))
    median = report("all centres at once (ours)", ours, len(queries))
    print(f"ours is {baseline / median:.1f} times as fast; {(found == found_singly).mean():.4%} of neighbours the same")
    sample = slice(0, 500)
    true = faiss.knn(queries[sample], vectors, args.cands)[1]
    print(f"recall@{args.cands} against brute force: ours {recall(with_auto[sample], true):.4f}")
    auto.nprobe = 1
    print(
        f"recall@{args.cands} with nprobe 1 (released): {recall(auto.search(queries[sample], args.cands)[0], true):.4f}"
    )


if __name__ == "__main__":
    main()
