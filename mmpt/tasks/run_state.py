"""The state of a run between two updates: whether to stop or to save, and what is still due."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmpt.utils.stopping import StopRequest


class RunState:
    """A record of what a run must do after an update, in addition to fairseq's intervals.

    Args:
        stop: the signals that this process receives.
        is_in_any: returns in all processes whether one of them has called it with True.
        save_every_minutes: interval of additional checkpoints. None: there are none.
    """

    def __init__(
        self,
        stop: StopRequest,
        is_in_any: Callable[[bool], bool],
        save_every_minutes: float | None,
    ):
        self.stop = stop
        self.has_ended = False
        self._is_in_any = is_in_any
        self._every_s = 60 * (save_every_minutes or 0)
        self._saved_at = time.monotonic()
        self._stop_agreed = False
        self._is_due = False

    def hear(self, logging_outputs: list[dict[str, Any]]) -> bool:
        """Returns whether a process was asked to stop, from the logs of all processes."""
        requests = [log.get("stop_requested", 0) for log in logging_outputs]
        self._stop_agreed |= any(number > 0 for number in requests)
        return self._stop_agreed

    def agrees_to_stop(self, *, is_end: bool) -> bool:
        """Returns whether a process was asked to stop. All processes return the same.

        They know it from the log of the update, which fairseq adds up over the processes.

        Args:
            is_end: True at the end of an epoch. A refresh may follow, which ends at a signal
                without saving. So the processes ask each other once more.
        """
        return self._stop_agreed or (is_end and self._is_in_any(bool(self.stop)))

    def must_save(self) -> bool:
        """Returns whether this process last saved the run `save_every_minutes` ago."""
        return 0 < self._every_s <= time.monotonic() - self._saved_at

    def note_saved(self) -> None:
        """Stores the time of a checkpoint."""
        self._saved_at = time.monotonic()

    @contextmanager
    def saving(self, *, is_due: bool) -> Iterator[None]:
        """A block that saves a checkpoint.

        Args:
            is_due: the validation and the other checkpoints of the update have not been done.
        """
        self._is_due = is_due
        yield
        self._is_due = False
        self.note_saved()

    def note_end(self, has_ended: bool) -> None:
        """Stores whether a validation has ended the run."""
        self.has_ended = has_ended

    def take_due(self) -> bool:
        """Returns whether the run continues before the validation of its last update."""
        is_due, self._is_due = self._is_due, False
        return is_due

    def state_dict(self) -> dict[str, Any]:
        """Returns the entry for a checkpoint."""
        return {"is_due": self._is_due}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the entry of a checkpoint."""
        self._is_due = state["is_due"]
