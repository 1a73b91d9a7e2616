"""A network over the rows of a batch, some at a time, and how many rows the device has memory for.

With gradient, a chunk's activations are not kept: backward computes them again. So a training step
needs memory for the states of all rows and for the activations of one chunk.
"""

import gc
import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmpt.errors import DeviceMemoryError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
Result = TypeVar("Result")
ALL = sys.maxsize
"""A limit that no batch reaches: nothing is cut into chunks."""
MOST_ON_CPU = 256
"""Rows at once that `auto` takes on a CPU, which never says that it is out of memory; more are no
faster there."""
SMALLER_BATCH = (
    "Make the batch smaller (`dataset.num_video_per_batch`, `dataset.clip_per_video` or "
    "`fairseq.dataset.batch_size`)."
)


class ChunkSize:
    """How many rows (clips or captions) a network computes at once.

    A number is kept. `auto` starts with `start` rows and halves whenever the device is out of
    memory, for the rest of the run.

    Args:
        key: the YAML key that sets it, for messages.
        setting: a number of rows; False: always all rows; "auto".
        start: rows at once that `auto` begins with, on other devices than a CPU.
    """

    def __init__(self, key: str, setting: int | str, start: int = ALL):
        self.key = key
        self.setting = setting
        self.is_auto = setting == "auto"
        self._most = start if isinstance(setting, str) else (setting or ALL)
        self._largest = 0
        """Rows of the largest chunk since the last attempt began."""

    def size(self, num_rows: int, device: torch.device) -> int:
        """Returns how many of `num_rows` rows to compute at once on `device`."""
        most = min(self._most, MOST_ON_CPU) if self.is_auto and device.type == "cpu" else self._most
        size = min(num_rows, most)
        self._largest = max(self._largest, size)
        return size

    def retry(
        self, run: Callable[[], Result], before_retry: Callable[[], None] | None = None
    ) -> Result:
        """Returns run(), repeated with half as many rows at once while the device is out of memory.

        Args:
            run: asks `size` each time.
            before_retry: undoes what a failed attempt may have changed.
        Raises:
            DeviceMemoryError: the size is fixed, or one row at a time is too much.
        """
        while True:
            self._largest = 0
            try:
                return run()
            except torch.OutOfMemoryError as error:
                if not self.is_auto:
                    raise self.failure(error, "Set it to `auto`.") from error
                if self._largest <= 1:
                    detail = ", even with one clip at a time"
                    raise self.failure(error, SMALLER_BATCH, detail) from error
            # After the handler: the traceback that it holds keeps the failed attempt's tensors.
            self._most = self._largest // 2
            told = "out of memory with %d clips at once; `%s: auto` takes %d from now on"
            logger.warning(told, self._largest, self.key, self._most)
            gc.collect()
            torch.cuda.empty_cache()
            if before_retry is not None:
                before_retry()

    def failure(
        self, error: torch.OutOfMemoryError, remedy: str, detail: str = ""
    ) -> DeviceMemoryError:
        """Returns the error that says what was tried in vain, and what to do."""
        said = ". ".join(str(error).split(". ")[:2])  # torch adds how its allocator may be tuned
        setting = f"{self.key}: {str(self.setting).lower()}"
        return DeviceMemoryError(f"out of memory with `{setting}`{detail} ({said}). {remedy}")


def run_chunks(run: Callable[..., Tensor], size: int, *inputs_N: Tensor) -> Tensor:
    """Returns run(*inputs_N), computed for `size` rows at a time.

    Values and gradients are those of one pass; dropout draws chunk by chunk, and backward uses the
    draws of forward.

    Args:
        run: treats every row by itself.
        size: at least the number of rows N: everything at once, nothing twice.
        inputs_N: tensors [N, ...].
    """
    if size >= len(inputs_N[0]):
        return run(*inputs_N)
    if torch.is_grad_enabled():
        run = partial(checkpoint, run, use_reentrant=False)
    chunks = zip(*(values.split(size) for values in inputs_N), strict=True)
    return torch.cat([run(*chunk) for chunk in chunks])
