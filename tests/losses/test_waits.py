"""Counts how often the losses make the host wait for a device."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmpt.losses import MMContraLoss
from mmpt.losses.sinkhorn import bucket_transport, transport
from tests.support.norton import norton_loss

WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
}
"""Operations whose result, or its size, is needed on the host. The first one is called by item(),
bool() and int() of a tensor."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations that wait if an index is a mask."""
COPYING = ("tolist", "cpu", "numpy", "new_tensor")
"""Methods that copy from or to the host and wait for the copy."""


class Waits(TorchDispatchMode):
    """Records every operation that would wait for a device, even if it runs on the CPU."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.seen: list[str] = []
        for name in COPYING:
            patch.setattr(Tensor, name, self.recorded(name, getattr(Tensor, name)))

    def recorded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.seen.append(name)
            return method(*args, **kwargs)

        return call

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in INDEXING else ()
        by_mask = any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in indices
        )
        if name in WAITING or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def norton_batch(num: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = {}
    for tower in ("video", "text"):
        lengths = torch.randint(1, 6, (num, 1), generator=generator)
        batch[f"pooled_{tower}"] = torch.randn(
            num, 6, generator=generator
        ).requires_grad_()
        batch[f"{tower}_outputs"] = torch.randn(
            num, 5, 6, generator=generator
        ).requires_grad_()
        batch[f"{tower}_mask_outputs"] = torch.arange(5) < lengths
    return batch


def test_transport_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    similarity = torch.rand(3, 4, 8, 8)
    with Waits(monkeypatch) as waits:
        transport(similarity, 50)
        bucket_transport(similarity, similarity[0, 0, 0, 0], 50, 0.1)
    assert waits.seen == []


@pytest.mark.parametrize("learnable", [False, True])
def test_the_norton_loss_waits_for_the_device_twice(
    learnable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = MMContraLoss(norton_loss(threshold=4, learnable_temperature=learnable))
    # This excludes operations that run only in the first call.
    loss(**norton_batch()).total.backward()
    with Waits(monkeypatch) as waits:
        loss(**norton_batch()).total.backward()
    # Once for the numbers of tokens, once for the check that the loss is finite.
    assert waits.seen == ["tolist", "_local_scalar_dense"]
