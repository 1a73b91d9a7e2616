"""The choice of lengths against every possible choice, and on lengths as the released recipe draws them."""

from itertools import combinations

import numpy as np
import pytest

from mmpt.modules.buckets import choose_lengths


def padding(counts: list[int], chosen: tuple[int, ...] | list[int]) -> int:
    return sum(
        count * (min(each for each in chosen if each >= length) - length)
        for length, count in enumerate(counts)
        if length and count
    )


@pytest.mark.parametrize("share", [0.0, 0.03, 0.1, 0.5, 3.0])
@pytest.mark.parametrize("seed", range(6))
def test_no_choice_of_as_few_lengths_pads_less_and_none_of_fewer_is_allowed(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    counts = (rng.integers(0, 9, 9) * (rng.random(9) < 0.8)).tolist()
    occurring = [length for length in range(1, 9) if counts[length]]
    tokens = sum(length * counts[length] for length in occurring)
    chosen = choose_lengths(counts, share)
    assert chosen == sorted(chosen)
    assert set(chosen) <= set(occurring)
    assert padding(counts, chosen) <= share * tokens
    least = {
        size: min(padding(counts, (*some, occurring[-1])) for some in combinations(occurring[:-1], size - 1))
        for size in range(1, len(occurring) + 1)
    }
    assert len(chosen) == min(size for size, pads in least.items() if pads <= share * tokens)
    assert padding(counts, chosen) == least[len(chosen)]


def test_without_padding_every_length_is_computed_and_nothing_comes_of_nothing() -> None:
    assert choose_lengths([5, 2, 0, 7], 0.0) == [1, 3]
    assert choose_lengths([5, 0, 0], 0.1) == []


def test_the_recipe_needs_few_lengths() -> None:
    """1024 clips of 3 to 16 seconds, captions that grow to 31 slots; counts of a batch that the aligner drew."""
    videos = [0] * 5 + [73, 73, 78, 72, 80, 78, 66, 74, 66, 70, 66, 78, 78, 72]
    texts = [0] * 10 + [3, 4, 10, 14, 13, 21, 31, 29, 33, 40, 33, 56, 18, 25, 32, 37, 31, 40, 42, 45, 45, 422]
    found = {}
    for share in (0.0, 0.05, 0.1):
        chosen = [choose_lengths(counts, share) for counts in (videos, texts)]
        for counts, lengths in zip((videos, texts), chosen, strict=True):
            assert padding(counts, lengths) <= share * sum(length * count for length, count in enumerate(counts))
        found[share] = [len(lengths) for lengths in chosen]
    assert found == {0.0: [14, 22], 0.05: [7, 4], 0.1: [5, 2]}
