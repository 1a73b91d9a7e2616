"""Batches whose loss is NaN or infinite: which they are, and what training does about them.

By default, training stops. With `loss.on_nonfinite: skip`, the update is skipped in all processes,
as long as there are few of them.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpt.config.schema import LossConfig
from mmpt.errors import UserError
from mmpt.utils.io import write_json
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


def plain_values(value: Any) -> Iterator[Any]:
    """Yields the values of nested lists, or of a tensor, in one sequence."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        for item in value:
            yield from plain_values(item)
    elif value is not None:
        yield value


class NonFiniteGradientError(UserError):
    """The loss is finite, but a gradient is not."""


class TooManySkippedError(UserError):
    """More updates were skipped than `loss.max_skipped` allows."""


class NonFiniteBatches:
    """Reports and counts the batches of a run whose loss is not finite.

    Args:
        config: the section `loss`.
        save_dir: folder of the reports.
        rank: rank of this process.
        in_any: returns in all processes whether one of them has called it with True.
    """

    def __init__(
        self,
        config: LossConfig,
        save_dir: str | Path,
        rank: int,
        in_any: Callable[[bool], bool],
    ):
        self.skips = config.on_nonfinite == "skip"
        self._max_skipped = config.max_skipped
        self._folder = Path(save_dir)
        self._rank = rank
        self._in_any = in_any
        self.num_skipped = 0  # updates of the run, including those before it continued
        self.is_update_skipped = False  # the update in progress
        self._is_batch_bad = False  # the batch in progress, in this process

    def report(self, update: int, sample: Mapping[str, Any], message: str) -> str:
        """Writes a file about a batch, and returns the message with the path of the file.

        Args:
            update: number of the update that the batch belongs to.
            sample: the batch.
            message: what is wrong.
        """
        path = self._folder / f"nonfinite_u{update}_r{self._rank}.json"
        content = {
            "update": update,
            "rank": self._rank,
            "videos": list(plain_values(sample.get("video_id"))),
            "items": list(plain_values(sample.get("idx"))),
            "message": message,
        }
        write_json(path, content)
        where = f"update {update}, rank {self._rank}"
        return f"{where}: {message} The videos of the batch are in {path}."

    def mark(self) -> None:
        """Marks the batch in progress of this process as one whose update must be skipped."""
        self._is_batch_bad = True

    def agree(self) -> bool:
        """Returns whether a process has marked its batch. All processes call it for each batch."""
        is_bad = self.skips and self._in_any(self._is_batch_bad)
        self._is_batch_bad = False
        self.is_update_skipped |= is_bad
        return is_bad

    def take_skipped(self) -> bool:
        """Returns whether to skip the update whose batches are done, and counts it.

        Raises:
            TooManySkippedError: in all processes, if there are too many.
        """
        is_skipped, self.is_update_skipped = self.is_update_skipped, False
        self.num_skipped += is_skipped
        if self.num_skipped > self._max_skipped:
            raise TooManySkippedError(
                f"the loss was not finite in {self.num_skipped} updates, but `loss.max_skipped` "
                f"allows {self._max_skipped}. {self._folder}/nonfinite_*.json name the videos. "
                "Lower the learning rate, or look for broken features of these videos."
            )
        if is_skipped:
            logger.warning(
                "skipped an update whose loss is not finite (%d of at most %d)",
                self.num_skipped,
                self._max_skipped,
            )
        return is_skipped
