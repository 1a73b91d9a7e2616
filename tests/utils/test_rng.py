"""Seeds are the same in every process, Python version and run."""

import hashlib

from mmpt.utils.rng import item_rng, stable_seed


def test_the_seed_is_the_beginning_of_a_sha256() -> None:
    digest = hashlib.sha256(b"item\x1f0\x1f1\x1f2").digest()
    assert stable_seed("item", 0, 1, 2) == sum(
        byte << (8 * place) for place, byte in enumerate(digest[:8])
    )


def test_every_item_has_its_own_repeatable_generator() -> None:
    def draws(*place: int) -> list[float]:
        rng = item_rng(*place)
        return [rng.random() for _ in range(3)]

    places = [
        (seed, epoch, index)
        for seed in range(3)
        for epoch in range(3)
        for index in range(20)
    ]
    assert len({tuple(draws(*place)) for place in places}) == len(places)
    assert draws(1, 2, 3) == draws(1, 2, 3)
