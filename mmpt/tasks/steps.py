"""A training step that is repeated in smaller chunks when the device is out of memory."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from mmpt.modules import ChunkSize

Result = TypeVar("Result")


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
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)
    return result
