"""A loss that is slow, so that a test can interrupt training."""

import time
from typing import Any

from mmpt.losses.base import LOSSES, LossOutput
from mmpt.losses.nce import MMContraLoss


@LOSSES.register
class SlowLoss(MMContraLoss):
    """`MMContraLoss`, and a pause before each training batch."""

    class Config(MMContraLoss.Config):
        """The keys of the loss."""

        pause_s: float = 0.0
        """Length of the pause."""

    config: Config

    def compute(self, **batch: Any) -> LossOutput:
        """Waits, and returns the loss."""
        if self.training:
            time.sleep(self.config.pause_s)
        return super().compute(**batch)
