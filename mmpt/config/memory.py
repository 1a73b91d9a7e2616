"""How a YAML says an amount of memory; units are decimal (1 GB = 1e9 bytes) or binary (1 GiB = 2 ** 30)."""

from __future__ import annotations

import re
from typing import Any

LEAST_BYTES = 1_000_000
UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)


def parse_memory(value: Any) -> int | float:
    """Return bytes as an int, or a share of the device as a float in (0, 1].

    Args:
        value: `16GB`, `900 MiB`, a number of bytes of at least a million, or a share, as text or number.
    Raises:
        ValueError: something else; the message reads "must be .., but is ..".
    """
    found = None if isinstance(value, bool) else AMOUNT.fullmatch(str(value))
    if found is not None:
        amount = float(found[1]) * UNITS[(found[2] or "").lower()]
        if 0 < amount <= 1 and found[2] is None:
            return amount
        if LEAST_BYTES <= amount < 2**63:
            return int(amount)
    raise ValueError(
        "must be an amount of at least 1 MB such as 16GB, 900MB or 8GiB, a number of bytes, or a share of the device "
        f"above 0 and at most 1, but is {value!r}"
    )
