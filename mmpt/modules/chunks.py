"""Runs a network on some rows of a batch at a time, as many as fit into the device's memory.

With gradient, the activations of a chunk are not kept; backward computes them again. A training
step therefore needs memory for the outputs of all rows and for the activations of one chunk. If
that is too much, the step is repeated with smaller chunks.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmpt.errors import DeviceMemoryError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
Result = TypeVar("Result")
ALL = sys.maxsize
"""A chunk size that is larger than any batch: all rows are computed at once."""
MAX_AUTO_ON_CPU = 256
"""Largest chunk of `auto` on a CPU. Larger ones are not faster there, and a CPU does not report
that it is out of memory."""
SMALLER_BATCH = (
    "Make the batch smaller (`dataset.num_video_per_batch`, `dataset.clip_per_video` or "
    "`fairseq.dataset.batch_size`; for `mmpt embed` and `mmpt index`, `--batch-size`)."
)


class ChunkSize:
    """The number of rows (clips or captions) that a network computes at once.

    A number that the user has set stays. `auto` starts with `start` rows. Whenever the device runs
    out of memory, it halves the size for the rest of the run.

    Args:
        key: YAML key of the setting, for messages.
        setting: a number of rows; False: always all rows; "auto".
        start: first size of `auto`, except on a CPU.
    """

    def __init__(self, key: str, setting: int | str, start: int = ALL):
        self.key = key
        self.setting = setting
        self.is_auto = setting == "auto"
        if isinstance(setting, str):
            self._limit = start
        else:
            self._limit = setting or ALL
        self._largest = 0
        """Rows of the largest chunk in the current attempt."""

    def size(self, num_rows: int, device: torch.device) -> int:
        """Returns how many of `num_rows` rows to compute at once on `device`."""
        limit = self._limit
        if self.is_auto and device.type == "cpu":
            limit = min(limit, MAX_AUTO_ON_CPU)
        size = min(num_rows, limit)
        self._largest = max(self._largest, size)
        return size

    def retry(
        self, run: Callable[[], Result], before_retry: Callable[[], None] | None = None
    ) -> Result:
        """Returns `run()`. When the device is out of memory, runs it again with half the size.

        Args:
            run: must call `size` in every attempt.
            before_retry: undoes the changes that a failed attempt may have made.
        Raises:
            DeviceMemoryError: the size is fixed, or a single row needs too much memory.
        """
        # An attempt may use several chunk sizes, for example of clips and of captions. Halving the
        # largest one that was used is certain to change something: the limit itself may be far
        # larger than the batch.
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
            # The memory must be freed outside the `except` block: inside it, the traceback still
            # holds the tensors of the failed attempt.
            self._limit = self._largest // 2
            message = (
                "out of memory with %d clips at once; `%s: auto` takes %d from now on"
            )
            logger.warning(message, self._largest, self.key, self._limit)
            gc.collect()
            torch.cuda.empty_cache()
            if before_retry is not None:
                before_retry()

    def failure(
        self, error: torch.OutOfMemoryError, remedy: str, detail: str = ""
    ) -> DeviceMemoryError:
        """Returns the error for a device without enough memory.

        Args:
            error: torch's error.
            remedy: what to do, as a sentence.
            detail: what was tried, appended to the setting.
        """
        # Keep the first two sentences of torch's message. The rest is about tuning its allocator.
        sentences = str(error).split(". ")
        reason = ". ".join(sentences[:2])
        setting = f"{self.key}: {str(self.setting).lower()}"
        return DeviceMemoryError(
            f"out of memory with `{setting}`{detail} ({reason}). {remedy}"
        )


def run_chunks(run: Callable[..., Tensor], size: int, *inputs_N: Tensor) -> Tensor:
    """Returns `run(*inputs_N)`, computed for `size` rows at a time.

    Values and gradients equal the results of one pass. Dropout draws its masks by chunk; backward
    uses the masks of forward.

    Args:
        run: must compute every row independently of the others.
        size: rows in a chunk. If it is at least N, all rows are computed in one pass, and backward
            computes nothing again.
        inputs_N: tensors [N, ...].
    """
    if size >= len(inputs_N[0]):
        return run(*inputs_N)
    if torch.is_grad_enabled():
        run = partial(checkpoint, run, use_reentrant=False)
    splits = [values.split(size) for values in inputs_N]
    outputs = []
    for chunk in zip(*splits, strict=True):
        outputs.append(run(*chunk))
    return torch.cat(outputs)


def step_in_memory(
    step: Callable[[], Result],
    chunk: ChunkSize,
    parameters: Sequence[nn.Parameter],
    device: torch.device,
) -> Result:
    """Returns step(), repeated with smaller chunks while the device is out of memory.

    Loss and gradients are as in a step that had the last chunk size from the start. The gradients
    of a failed attempt are discarded, and dropout draws the same random numbers again. A step
    changes nothing else: the towers keep no running statistics, and the weights are updated later.

    Args:
        step: forward and backward of one batch. It must not contain collective calls, because the
            other processes do not repeat it.
        chunk: the chunk size of the model.
        parameters: all parameters to whose gradients the step adds.
        device: the model's.
    Raises:
        DeviceMemoryError: see `ChunkSize.retry`.
    """
    random_state = torch.get_rng_state()
    device_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    # Earlier batches of the same update (`update_freq`) may have left gradients. They are set
    # aside, so that a failed attempt cannot add to them.
    earlier = [parameter.grad for parameter in parameters]

    def clear() -> None:
        for parameter in parameters:
            parameter.grad = None

    def start_again() -> None:
        clear()
        torch.set_rng_state(random_state)
        if device_state is not None:
            torch.cuda.set_rng_state(device_state, device)

    clear()
    result = chunk.retry(step, start_again)
    for parameter, gradient in zip(parameters, earlier, strict=True):
        if gradient is None:
            continue
        if parameter.grad is not None:
            gradient = gradient.add_(parameter.grad)
        parameter.grad = gradient
    return result
