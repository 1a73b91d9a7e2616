"""A loss that records the phases of its training run, for runs that SLURM starts."""

from functools import cache
from pathlib import Path
from typing import Any

from mmpt.losses.base import LOSSES, LossOutput
from mmpt.utils.distributed import World
from tests.support.chaos.phases import record_phases
from tests.support.slow_loss import SlowLoss


@LOSSES.register
class RecordedLoss(SlowLoss):
    """`SlowLoss`, in a training run that records its phases from the first update on."""

    class Config(SlowLoss.Config):
        """The keys of the loss."""

        phases: str = ""
        """File of the phases."""

    config: Config

    def compute(self, **batch: Any) -> LossOutput:
        """Waits, and returns the loss."""
        if self.training:
            record_once(self.config.phases)
        return super().compute(**batch)


@cache
def record_once(path: str) -> None:
    """Records the phases of this process."""
    record_phases(Path(path), World.current().rank)
