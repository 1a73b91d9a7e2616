"""Costs of DTW and OTAM for many pairs at once, against loops over the cells of single pairs."""

import numpy as np
import pytest

from mmpt.evaluators import warping
from mmpt.evaluators.warping import Form, Size
from tests.support import naive_warping

SHAPES = [(1, 1), (1, 4), (4, 1), (3, 5), (6, 2)]
"""Rows and columns of the blocks, of which the release pads some and crops others."""


@pytest.mark.parametrize("kind", ["dtw", "otam"])
@pytest.mark.parametrize("form", ["released", "corrected"])
@pytest.mark.parametrize("size", [(6, 5), (4, 4)])
@pytest.mark.parametrize("shape", SHAPES)
def test_costs_equal_a_loop(kind: str, form: Form, size: Size, shape: Size) -> None:
    rng = np.random.default_rng(0)
    distance = rng.normal(size=(*shape, 7)).astype(np.float32)
    cost = getattr(warping, f"{kind}_cost")(distance, size, form)
    assert cost.shape == (7,)
    for pair, found in enumerate(cost):
        block = distance[..., pair].astype(np.float64)
        score = naive_warping.score(block, kind, form, *size)
        assert found == pytest.approx(-score, abs=1e-5)  # measured 5e-7: float32
