"""Matrix products against float64, in every memory layout, and what happens where oneDNN is missing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmpt.utils import products
from mmpt.utils.products import has_onednn, product


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (64, 96, 768), (65, 33, 31), (0, 4, 3), (4, 0, 3), (4, 3, 0)])
def test_products_are_exact_in_every_layout(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    m, n, k = shape
    a, b = random(m, k, dtype=dtype), random(n, k + 1, dtype=dtype)[:, 1:]
    expected = a.double() @ b.double().T
    for left in (a, a.T.contiguous().T):
        for right in (b, b.T.contiguous().T):
            result = product(left, right)
            assert result.dtype == dtype
            bound = 3e-4 if dtype == torch.float32 else 1e-13  # of entries up to 103; measured: 1e-4, MKL's 4e-5; 0
            torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=bound)


def test_products_have_no_gradient() -> None:
    assert not product(random(2, 3).requires_grad_(), random(4, 3)).requires_grad


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError])
def test_without_onednn_torch_multiplies(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any) -> torch.Tensor:
        raise error("not in this build")

    monkeypatch.setattr(products, "_by_onednn", missing)
    has_onednn.cache_clear()
    try:
        assert not has_onednn()
        a, b = random(3, 4), random(5, 4)
        torch.testing.assert_close(product(a, b), a @ b.T, rtol=0, atol=0)
    finally:
        has_onednn.cache_clear()
