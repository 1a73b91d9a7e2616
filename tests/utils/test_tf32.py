"""Products of float32 matrices inside the context and after it."""

from collections.abc import Iterator

import pytest
import torch

from mmpt.utils.tf32 import float32_products


@pytest.fixture(autouse=True)
def keep_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("precision", "inside"), [("high", "high"), ("highest", "highest"), (None, "medium")])
def test_products_are_of_float32_inside_and_as_before_behind(precision, inside: str) -> None:
    def multiply() -> None:
        with float32_products(ones.device, precision):
            assert torch.get_float32_matmul_precision() == inside
            assert (ones @ ones).dtype == torch.float32
            raise ZeroDivisionError

    torch.set_float32_matmul_precision("medium")
    ones = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ZeroDivisionError):
            multiply()
        assert (ones @ ones).dtype == torch.bfloat16
    assert torch.get_float32_matmul_precision() == "medium"
