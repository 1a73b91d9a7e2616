"""Losses of the heads that classify every second: cross-entropy (COIN) and binary cross-entropy
(CrossTask).
"""

from typing import Any

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mmpt.losses.base import LOSSES, Loss, LossOutput
from mmpt.losses.precision import wide

IGNORE_INDEX = -100
"""Target of padded seconds."""


@LOSSES.register
class CrossEntropy(Loss):
    """Cross-entropy over classes, mean over the seconds whose target is not -100."""

    needs = ("logits",)

    def compute(self, *, logits: Tensor, targets: Tensor, **_: Any) -> LossOutput:
        """Return term `cross_entropy` and metric `accuracy`.

        Args:
            logits: float [..., K].
            targets: int64 [...] with as many entries, class numbers or -100.
        """
        logits_NK = wide(logits).flatten(0, -2)
        targets_N = targets.flatten()
        real_N = targets_N != IGNORE_INDEX
        right_N = (logits_NK.detach().argmax(1) == targets_N) & real_N
        return LossOutput(
            terms={"cross_entropy": cross_entropy(logits_NK, targets_N, ignore_index=IGNORE_INDEX)},
            metrics={"accuracy": right_N.sum() / real_N.sum()},
        )


@LOSSES.register
class BCE(Loss):
    """Binary cross-entropy with logits, mean over all seconds and steps of one video."""

    needs = ("logits",)

    def compute(self, *, logits: Tensor, targets: Tensor, **_: Any) -> LossOutput:
        """Return term `binary_cross_entropy`.

        Args:
            logits: float [R, K], real seconds by steps.
            targets: float [1, R, K], 0 or 1.
        """
        term = binary_cross_entropy_with_logits(wide(logits), wide(targets[0]))
        return LossOutput({"binary_cross_entropy": term})
