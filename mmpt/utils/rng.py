"""Random generators from (seed, epoch, index).

The samples of an item therefore do not depend on the number of workers or processes.
"""

import hashlib
import random


def stable_seed(*parts: object) -> int:
    """Returns a 64-bit seed that depends only on `str` of each part (not on PYTHONHASHSEED)."""
    joined = "\x1f".join(map(str, parts))
    digest = hashlib.sha256(joined.encode()).digest()
    first_bytes = digest[:8]
    return int.from_bytes(first_bytes, "little")


def item_rng(seed: int, epoch: int, index: int) -> random.Random:
    """Returns the random generator of item `index` in epoch `epoch`."""
    item_seed = stable_seed("item", seed, epoch, index)
    return random.Random(item_seed)
