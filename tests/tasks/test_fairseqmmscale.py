"""After an interruption, the loss scale of float16 is the same as in an uninterrupted run."""

import io
import random
from typing import Any

import pytest
import torch
from fairseq.optim.dynamic_loss_scaler import DynamicLossScaler
from fairseq.optim.fp16_optimizer import (
    _FP16OptimizerMixin,
    _MemoryEfficientFP16OptimizerMixin,
)

from mmpt.tasks import fairseqmmscale


class Adam(torch.optim.Adam):
    """Adam with the interface of fairseq's optimizers."""

    def load_state_dict(self, state: Any, overrides: Any = None) -> None:
        super().load_state_dict(state)


def optimizer(mixin: type) -> Any:
    """Returns an optimizer for float16 whose scale changes often."""
    made: Any = object.__new__(type("Float16", (mixin,), {"optimizer": None}))
    inner = Adam([torch.nn.Parameter(torch.zeros(1))])
    made.scaler = DynamicLossScaler(init_scale=128.0, scale_window=5, tolerance=0.3)
    made.fp32_optimizer = made.wrapped_optimizer = inner
    type(made).optimizer = inner
    return made


def step(scaler: DynamicLossScaler, overflows: bool) -> tuple[float, dict[str, int]]:
    """Makes an update, and returns the state of the scaler."""
    if overflows:
        with pytest.raises(OverflowError):
            scaler.check_overflow(float("inf"))
    else:
        scaler.check_overflow(1.0)
        scaler.update()
    return scaler.loss_scale, fairseqmmscale.counts_of(scaler)


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """Returns a state after saving and loading it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    "mixin", [_FP16OptimizerMixin, _MemoryEfficientFP16OptimizerMixin]
)
def test_every_later_scale_equals_the_scale_of_an_uninterrupted_run(
    mixin: type,
) -> None:
    fairseqmmscale.save_loss_scale()
    rng = random.Random(0)
    overflows = [rng.random() < 0.15 for _ in range(200)]
    whole = optimizer(mixin)
    states, saved = [], []
    for overflow in overflows:
        saved.append(copied(whole.state_dict()))
        states.append(step(whole.scaler, overflow))
    assert len({scale for scale, _ in states}) > 3
    for at in range(0, 200, 7):
        continued = optimizer(mixin)
        continued.load_state_dict(saved[at])
        found = [step(continued.scaler, overflow) for overflow in overflows[at:]]
        assert found == states[at:]


def test_a_checkpoint_of_fairseq_without_counts_is_loaded() -> None:
    fairseqmmscale.save_loss_scale()
    saved = optimizer(_FP16OptimizerMixin).state_dict()
    del saved[fairseqmmscale.COUNTS]
    fresh = optimizer(_FP16OptimizerMixin)
    fresh.load_state_dict(saved | {"loss_scale": 4.0})
    assert fresh.scaler.loss_scale == 4.0
    assert fresh.scaler._iter == 0
