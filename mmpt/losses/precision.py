"""The dtype that losses compute in: half precision is upcast to float32."""

import torch
from torch import Tensor


def upcast_dtype(tensor: Tensor) -> torch.dtype:
    """Returns float64 if `tensor` has this dtype, else float32."""
    return torch.promote_types(tensor.dtype, torch.float32)


def upcast(tensor: Tensor) -> Tensor:
    """Returns a half-precision tensor in float32. Tensors in float32 and float64 are unchanged."""
    return tensor.to(upcast_dtype(tensor))
