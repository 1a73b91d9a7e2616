"""The share of a similarity that lengths explain, and the rank of the matching clip."""

import pytest
import torch

from experiments.token_lengths import rank_of_own, share_of_lengths


def test_the_share_of_variance_between_groups_of_equal_lengths() -> None:
    text_A = torch.tensor([2, 2, 5, 5])
    video_B = torch.tensor([1, 3, 3])
    lengths_AB = text_A[:, None].log() * video_B
    assert share_of_lengths(lengths_AB, text_A, video_B) == pytest.approx(1)
    # It has mean 0 in each group, and the same variance as `lengths_AB` after scaling.
    other_AB = torch.tensor([[1.0], [-1], [1], [-1]]).expand(4, 3)
    other_AB = other_AB * lengths_AB.std() / other_AB.std()
    assert share_of_lengths(other_AB, text_A, video_B) == pytest.approx(0, abs=1e-6)
    both = share_of_lengths(lengths_AB + other_AB, text_A, video_B)
    assert both == pytest.approx(0.5, abs=1e-4)


def test_the_rank_is_the_share_of_less_similar_clips() -> None:
    assert rank_of_own(torch.eye(5)) == 1
    assert rank_of_own(-torch.eye(5)) == 0
    similarity_AB = torch.tensor([[2.0, 1, 3], [1, 2, 0], [0, 0, 1]])
    assert rank_of_own(similarity_AB) == pytest.approx((0.5 + 1 + 1) / 3)
