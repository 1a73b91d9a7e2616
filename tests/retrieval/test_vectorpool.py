"""Video vectors against loops written here, and the gathering of two processes."""

import tracemalloc

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mmpt.errors import DataError
from mmpt.retrieval import VideoVectorPool, video_vectors
from mmpt.utils.distributed import World
from tests.ranks import run_ranks


def test_mean_over_clips_and_towers():
    video, text = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)).half()
    vectors = video_vectors(video, text, clips=3)
    assert vectors.dtype == torch.float32
    for which in range(2):
        rows = [(video[3 * which + clip].double() + text[3 * which + clip].double()) / 2 for clip in range(3)]
        torch.testing.assert_close(vectors[which].double(), sum(rows) / 3, rtol=1e-6, atol=1e-7)  # measured: 1e-8


def test_the_first_vector_of_a_position_counts():
    pool = VideoVectorPool(3, 2)
    pool.add(torch.tensor([2, 0, 2]), torch.tensor([[1.0, 1], [2, 2], [9, 9]]))
    pool.add(np.array([0, 1]), np.array([[8.0, 8], [3, 3]]))
    assert len(pool) == 3
    gathered = pool.gather(World())
    assert gathered.dtype == np.float16
    assert gathered.tolist() == [[2, 2], [3, 3], [1, 1]]


def test_missing_and_broken_vectors_are_counted():
    pool = VideoVectorPool(5, 2)
    pool.add(torch.tensor([0, 3]), torch.ones(2, 2))
    with pytest.raises(DataError, match=r"3 of 5 videos have no vector \(first at list position 1\)"):
        pool.gather(World())
    whole = torch.tensor([[1, 1], [np.inf, -np.inf], [0, np.nan], [65504, -65504]])
    with pytest.raises(DataError, match=r"2 of 4 video vectors are not finite or beyond 65504 .*list position 1\)"):
        pool.add(torch.tensor([4, 2, 1, 0]), whole)
    with pytest.raises(DataError, match=r"1 of 1 video vectors are .*list position 4\)"):
        pool.add(torch.tensor([4]), torch.tensor([[0, 65505.0]]))  # would be rounded to 65504
    pool.add(torch.tensor([4]), torch.tensor([[65504.0, -65504.0]]))
    assert len(pool) == 3


def nearest(vectors, k):
    """Positions of the k nearest of the first 300 vectors, in float64."""
    vectors = vectors.astype(np.float64)
    costs = np.square(vectors).sum(axis=1) - 2 * vectors[:300] @ vectors.T
    return np.argsort(costs, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(("dim", "k"), [(128, 24), (768, 192)])
def test_rounding_leaves_the_neighbours(dim, k):
    rng = np.random.default_rng(0)
    topics = 0.3 * rng.standard_normal((150, dim))[rng.integers(0, 150, 3000)]
    vectors = rng.standard_normal(dim) + topics + 0.15 * rng.standard_normal((3000, dim))  # all share a direction
    pool = VideoVectorPool(3000, dim)
    pool.add(np.arange(3000), vectors)
    pairs = zip(nearest(vectors, k), nearest(pool.gather(World()), k), strict=True)
    assert np.mean([len(set(a) & set(b)) / k for a, b in pairs]) > 0.995  # measured: 0.9994 and 0.9989


def _share(rank, init_file, folder):
    dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=3)
    pool = VideoVectorPool(6, 3)
    positions = torch.tensor([[0, 4], [1, 3, 0], [2, 3]][rank])  # 0 and 3 are the sampler's padding
    pool.add(positions, 10.0 * positions[:, None] + torch.arange(3) + 100 * rank)
    with pytest.raises(DataError, match=r"1 of 6 videos have no vector \(first at list position 5\)"):
        pool.gather(World.current())  # says so in every process
    if rank == 2:
        pool.add(torch.tensor([5]), torch.full((1, 3), 7.0))
    vectors = pool.gather(World.current())
    assert (vectors is None) == (rank > 0)
    if rank == 0:
        np.save(f"{folder}/vectors.npy", vectors)
    dist.destroy_process_group()


def test_rank_0_gets_the_vectors_of_all_processes_and_of_the_lowest_rank(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_ranks(_share, tmp_path / "init", tmp_path, size=3)
    expected = 10.0 * np.arange(6)[:, None] + np.arange(3) + 100 * np.array([0, 1, 2, 1, 0, 0])[:, None]
    expected[5] = 7
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), expected)


def test_one_process_needs_the_memory_of_one_matrix():
    num, dim = 20_000, 64
    tracemalloc.start()
    pool = VideoVectorPool(num, dim)
    for begin in range(0, num, 100):
        pool.add(np.arange(begin, begin + 100), np.ones((100, dim), np.float32))
    vectors = pool.gather(World())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * vectors.nbytes  # measured: 1.03
