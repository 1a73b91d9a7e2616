"""How exactly a GPU computes in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch

from mmpt.utils.log import get_logger

logger = get_logger(__name__)


def set_tf32(allowed: bool) -> None:
    """Choose for this process whether a GPU may multiply float32 matrices in TF32, and say so where there is one.

    TF32 keeps 10 bits of each factor's mantissa and sums in float32. Half precision is not concerned, and neither are
    convolutions, which no tower has; see `convolutions`.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    if torch.cuda.is_available():
        kind = "TF32, if the GPU can (`model.tf32`)" if allowed else "float32, not TF32"
        logger.info("float32 matrices are multiplied in %s", kind)


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


def convolutions(*, tf32: bool) -> AbstractContextManager[Any]:
    """Make convolutions of a GPU give equal results every time; in TF32 only if asked for (torch's own default)."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)
