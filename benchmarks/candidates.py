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
from typing import Any

import faiss
import numpy as np

from full_size_data import vector_blocks
from mmpt.errors import UserError
from mmpt.retrieval import VectorRetriever
from results import Figure, at_least, record, run_script, timed

BLOCK = 100_000


def make_vectors(num: int, dim: int, seed: int) -> np.ndarray:
    """Return float16 [num, dim]."""
    vectors = np.empty((num, dim), dtype=np.float16)
    for begin, block in vector_blocks(num, dim, BLOCK, seed):
        vectors[begin : begin + len(block)] = block
    return vectors


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


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=at_least(1), default=100_000)
    parser.add_argument("--dim", type=at_least(1), default=768)
    parser.add_argument(
        "--batch", type=at_least(1), default=64, help="videos per batch; there are videos/batch centres"
    )
    parser.add_argument(
        "--single", type=at_least(1), default=300, help="centres that are searched one by one, each round"
    )
    parser.add_argument("--cands", type=at_least(1), default=192)
    parser.add_argument("--centroids", type=at_least(1), default=512)
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--seed", type=at_least(0), default=0)
    return parser.parse_args()


def main() -> None:
    """Build, search in turns, compare, record."""
    args = options()
    if max(args.batch, args.cands) > args.videos:
        raise UserError(
            f"--batch and --cands must be at most --videos ({args.videos}), but are {args.batch} and {args.cands}."
        )
    logging.getLogger().setLevel(logging.INFO)

    vectors = make_vectors(args.videos, args.dim, args.seed)
    rng = np.random.default_rng(args.seed)
    centres = rng.choice(args.videos, args.videos // args.batch, replace=False)
    queries = vectors[centres].astype(np.float32)
    retriever = VectorRetriever(args.dim, args.centroids, seed=args.seed)
    build_s, _ = timed(build, retriever, vectors)
    first_s, (found, _) = timed(retriever.search, queries, args.cands)
    index = same_in_faiss(retriever)

    retriever.nprobe = retriever.last_nprobe
    ours, single, same = [], [], []
    for _ in range(args.rounds):
        ours.append(timed(retriever.search, queries, args.cands)[0])
        rows = rng.choice(len(queries), min(args.single, len(queries)), replace=False)
        seconds, singly = timed(one_by_one, index, queries[rows], args.cands)
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
    run_script(main)
