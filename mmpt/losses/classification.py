"""Losses of the models that classify every second of a video.

COIN uses the cross-entropy, CrossTask the binary cross-entropy. Legend: N seconds, R real seconds,
K classes (or steps).
"""

from typing import Any

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mmpt.losses.base import LOSSES, Loss, LossOutput, upcast

IGNORE_INDEX = -100
"""Target of padded seconds."""


@LOSSES.register
class CrossEntropy(Loss):
    """Cross-entropy over classes, averaged over all seconds whose target is not -100."""

    inputs = ("logits",)

    def compute(self, *, logits: Tensor, targets: Tensor, **_: Any) -> LossOutput:
        """Returns the term `cross_entropy` and the metric `accuracy`.

        Args:
            logits: float [..., K].
            targets: int64 with one entry per second: the class, or -100. It may have more axes
                than `logits`, as long as the order of the seconds is the same.
        """
        logits_NK = upcast(logits).flatten(0, -2)
        targets_N = targets.flatten()
        term = cross_entropy(logits_NK, targets_N, ignore_index=IGNORE_INDEX)

        # Padded seconds are never correct: -100 is not a class.
        is_real_N = targets_N != IGNORE_INDEX
        is_correct_N = logits_NK.detach().argmax(1) == targets_N
        accuracy = is_correct_N.sum() / is_real_N.sum()
        return LossOutput(terms={"cross_entropy": term}, metrics={"accuracy": accuracy})


@LOSSES.register
class BCE(Loss):
    """Binary cross-entropy with logits, averaged over all seconds and steps of one video."""

    inputs = ("logits",)

    def compute(self, *, logits: Tensor, targets: Tensor, **_: Any) -> LossOutput:
        """Returns the term `binary_cross_entropy`.

        Args:
            logits: float [R, K].
            targets: float [1, R, K], 0 or 1.
        """
        term = binary_cross_entropy_with_logits(upcast(logits), upcast(targets[0]))
        return LossOutput({"binary_cross_entropy": term})
