"""The type that losses compute in: float32 for half precision, else the type that comes in."""

import torch
from torch import Tensor


def wide_type(tensor: Tensor) -> torch.dtype:
    """Return float32, or float64 if `tensor` is that."""
    return torch.promote_types(tensor.dtype, torch.float32)


def wide(tensor: Tensor) -> Tensor:
    """Upcast half precision to float32; keep float32 and float64."""
    return tensor.to(wide_type(tensor))
