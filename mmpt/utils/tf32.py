"""How exactly a GPU computes in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch


@contextmanager
def float32_products(device: torch.device, precision: Literal["highest", "high"] | None = None) -> Iterator[None]:
    """Keep products of float32 matrices from half precision: no autocast inside.

    Args:
        device: where they are.
        precision: of factors on a GPU: "highest", all of float32; "high", TF32; None: as it is set.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision or before)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
