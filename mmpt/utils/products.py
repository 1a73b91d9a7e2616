"""Matrix products a @ b^T without gradient: float32 on a CPU by oneDNN where torch has it, else as torch does.

torch multiplies float32 matrices on a CPU by MKL, which leaves half of the vector unit idle on processors that are not
Intel's; oneDNN, built into the same torch, uses all of it. The results are equal to rounding.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import linear


@cache
def has_onednn() -> bool:
    """Return whether oneDNN multiplies here; its operation is not part of torch's public interface, so it is tried."""
    probe = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    try:
        return torch.equal(_by_onednn(probe, probe, probe[:, 0]), linear(probe, probe, probe[:, 0]))
    except (AttributeError, RuntimeError, TypeError):  # a build without it, or with another signature
        return False


@torch.no_grad()
def product(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Return a @ b^T + bias, [M, N], without gradient; all float of one type and device, in any memory layout."""
    on_cpu = a_MK.dtype == torch.float32 and a_MK.device.type == "cpu"
    if on_cpu and a_MK.numel() and has_onednn():  # which knows no sums of nothing
        return _by_onednn(a_MK, b_NK, bias_N)
    return linear(a_MK, b_NK, bias_N)


def _by_onednn(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    bias_N = None if bias_N is None else bias_N.contiguous()  # its stride would not be read
    return torch.ops.mkldnn._linear_pointwise(a_MK, b_NK, bias_N, "none", [], "")
