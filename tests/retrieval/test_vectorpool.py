"""Video vectors against loops written here, and the gathering of two processes."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmpt.errors import DataError
from mmpt.retrieval import VideoVectorPool, video_vectors
from mmpt.utils.distributed import World


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
    assert gathered.dtype == np.float32
    assert gathered.tolist() == [[2, 2], [3, 3], [1, 1]]


def test_missing_and_broken_vectors_are_counted():
    pool = VideoVectorPool(5, 2)
    pool.add(torch.tensor([0, 3]), torch.ones(2, 2))
    with pytest.raises(DataError, match=r"3 of 5 videos have no vector \(first at list position 1\)"):
        pool.gather(World())
    pool.add(torch.tensor([1, 2, 4]), torch.tensor([[1, 1], [np.inf, -np.inf], [0, np.nan]]))
    with pytest.raises(DataError, match=r"2 of 5 video vectors are not finite \(first at list position 2\)"):
        pool.gather(World())


def _share(rank, init_file, folder):
    dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    pool = VideoVectorPool(5, 3)
    positions = torch.tensor([0, 2, 4] if rank == 0 else [1, 3, 0])  # 0 is the sampler's padding
    pool.add(positions, 10.0 * positions[:, None] + torch.arange(3) + 100 * rank * (positions[:, None] == 0))
    np.save(f"{folder}/{rank}.npy", pool.gather(World.current()))
    dist.destroy_process_group()


def test_two_processes_end_with_the_same_vectors(tmp_path):
    mp.spawn(_share, args=(tmp_path / "init", tmp_path), nprocs=2)
    expected = 10.0 * np.arange(5)[:, None] + np.arange(3)
    for rank in range(2):
        assert np.array_equal(np.load(tmp_path / f"{rank}.npy"), expected)
