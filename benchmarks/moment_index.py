"""Search in an index of moments (ours) and comparison with all vectors by NumPy (plain).

    python benchmarks/moment_index.py                     # 100,000 clips, minutes
    python benchmarks/moment_index.py --clips 1000000     # 2 GB of disk and memory

The vectors are random and of length 1, without any clusters. That is the hardest case: a type of
index that compares a query with only a part of the vectors, such as IVF, misses the others. Queries
are random, too. The index is loaded from its file, with vectors and index mapped into memory, and
searched for one query at a time. Both sides get the same queries and return the ten best clips.
Recall is the share of the clips of the exact search that were found.
"""

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmpt.retrieval.saved_index import SavedIndex, default_type, map_vectors
from process_memory import MB
from results import Figure, Options, record, run_script, time_in_turns, timed

K = 10
BLOCK = 50_000


def random_units(num: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Returns random vectors of length 1, float32 [num, dim]."""
    vectors = rng.standard_normal((num, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def write_vectors(path: Path, num: int, dim: int, rng: np.random.Generator) -> None:
    """Writes random vectors as rows of float16."""
    with path.open("wb") as file:
        for begin in range(0, num, BLOCK):
            num_rows = min(BLOCK, num - begin)
            rows = random_units(num_rows, dim, rng).astype(np.float16)
            file.write(rows.tobytes())


def search_all(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Returns the positions of the best clips for a query, by comparison with all vectors."""
    scores = np.empty(len(vectors), dtype=np.float32)
    for begin in range(0, len(vectors), BLOCK):
        rows = slice(begin, begin + BLOCK)
        scores[rows] = vectors[rows].astype(np.float32) @ query
    best = np.argpartition(-scores, K)[:K]
    return best[np.argsort(-scores[best])]


def measure_type(
    index_type: str, vectors: np.ndarray, queries: np.ndarray, path: Path, rounds: int
) -> list[Figure]:
    """Builds, saves and loads an index of a type, and returns its figures."""
    build_s, built = timed(SavedIndex.build, vectors, index_type)
    save_s, _ = timed(built.save, path)
    load_s, index = timed(SavedIndex.load, path, vectors)
    recalls: list[float] = []

    def ours(_: int) -> list[np.ndarray]:
        return [index.search(query[None], K).positions_mk[0] for query in queries]

    def plain(_: int) -> list[np.ndarray]:
        return [search_all(vectors, query) for query in queries]

    def check(found: list[np.ndarray], true: list[np.ndarray]) -> None:
        shares = [
            len(np.intersect1d(one, other)) / K
            for one, other in zip(found, true, strict=True)
        ]
        recalls.append(statistics.mean(shares))

    our_s, plain_s = time_in_turns(rounds, ours, plain, check=check)
    our_query_s = [seconds / len(queries) for seconds in our_s]
    plain_query_s = [seconds / len(queries) for seconds in plain_s]
    name = f"moments: {len(vectors):,} x {vectors.shape[1]}, {index_type}"
    return [
        Figure(f"{name}: size of the index", "MB", [path.stat().st_size / MB]),
        Figure(f"{name}: build and save", "s", [build_s + save_s]),
        Figure(f"{name}: load", "s", [load_s]),
        Figure(f"{name}: a query", "s", ours=our_query_s, plain=plain_query_s),
        Figure(f"{name}: recall@{K}", "", recalls[1:]),
    ]


def measure(args: Any) -> list[Figure]:
    """Returns the figures of all types."""
    rng = np.random.default_rng(args.seed)
    # The default type for few clips is exact. The default type for many clips is measured, too.
    types = args.types or ["Flat", default_type(1 << 20, args.dim)]
    figures = []
    with TemporaryDirectory(prefix="mmpt_") as folder:
        path = Path(folder) / "vectors.f16"
        write_vectors(path, args.clips, args.dim, rng)
        queries = random_units(args.queries, args.dim, rng)
        vectors = map_vectors(path, args.dim)
        size = vectors.nbytes / MB
        name = f"moments: {args.clips:,} x {args.dim}: size of the vectors"
        figures.append(Figure(name, "MB", [size]))
        for number, index_type in enumerate(types):
            file = Path(folder) / f"{number}.faiss"
            figures += measure_type(index_type, vectors, queries, file, args.rounds)
            file.unlink()
    return figures


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.number("--clips", 100_000, "number of vectors", least=1000)
    parser.number("--dim", 768, "length of a vector")
    parser.number("--queries", 20, "number of queries")
    parser.number("--rounds", 3)
    parser.number("--seed", 0, least=0)
    parser.add_argument(
        "--types", nargs="+", help="types of the index, as for faiss.index_factory"
    )
    args = parser.parse_args()
    record(measure(args), args.out)


if __name__ == "__main__":
    run_script(main)
