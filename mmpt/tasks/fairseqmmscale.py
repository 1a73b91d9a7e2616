"""The state of the loss scale in float16, which fairseq's checkpoints contain only in part.

In float16, fairseq multiplies the loss by a scale. It halves the scale after an overflow, and
doubles it after a number of updates without one. fairseq saves the scale, but not the counts on
which the next change depends.
"""

from typing import Any

from fairseq.optim.dynamic_loss_scaler import DynamicLossScaler
from fairseq.optim.fp16_optimizer import (
    _FP16OptimizerMixin,
    _MemoryEfficientFP16OptimizerMixin,
)

COUNTS = "loss_scale_counts"
"""Key of the counts in a checkpoint's optimizer state. It also marks methods that were replaced."""
NAMES = (
    "_iter",
    "_last_overflow_iter",
    "_last_rescale_iter",
    "_overflows_since_rescale",
)
"""The counts, as fairseq's class names them."""


def counts_of(scaler: DynamicLossScaler) -> dict[str, int]:
    """Returns the counts of a scaler."""
    return {name: getattr(scaler, name) for name in NAMES}


def restore_counts(scaler: DynamicLossScaler, counts: dict[str, int]) -> None:
    """Gives a scaler the counts that `counts_of` has returned."""
    for name in NAMES:
        setattr(scaler, name, counts[name])


def save_loss_scale() -> None:
    """Makes fairseq's optimizers for float16 save and restore the counts."""
    for mixin in (_FP16OptimizerMixin, _MemoryEfficientFP16OptimizerMixin):
        if not hasattr(mixin.state_dict, COUNTS):  # not replaced yet
            _wrap(mixin)


def _wrap(mixin: Any) -> None:
    original_state, original_load = mixin.state_dict, mixin.load_state_dict

    def state_dict(optimizer: Any) -> dict[str, Any]:
        state: dict[str, Any] = original_state(optimizer)
        if optimizer.scaler is not None:
            state[COUNTS] = counts_of(optimizer.scaler)
        return state

    def load_state_dict(optimizer: Any, state: dict[str, Any], *args: Any) -> None:
        original_load(optimizer, state, *args)
        # A checkpoint of fairseq itself has no counts.
        if optimizer.scaler is not None and COUNTS in state:
            restore_counts(optimizer.scaler, state[COUNTS])

    setattr(state_dict, COUNTS, True)
    mixin.state_dict, mixin.load_state_dict = state_dict, load_state_dict
