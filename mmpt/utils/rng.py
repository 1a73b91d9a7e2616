"""Generators from (seed, epoch, index): the same item comes out whatever the number of workers or
processes.
"""

import hashlib
import random


def stable_seed(*parts: object) -> int:
    """Return a 64-bit seed that depends on the printed form of `parts` only (not on
    PYTHONHASHSEED).
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def item_rng(seed: int, epoch: int, index: int) -> random.Random:
    """Return the generator of item `index` in epoch `epoch`."""
    return random.Random(stable_seed("item", seed, epoch, index))
