"""Whether torch can use a device. A GPU may be visible to torch, but not usable."""

import torch

from mmpt.errors import first_line


def device_problem(device: torch.device | str) -> str:
    """Returns why torch cannot use a device, or "" if it can.

    A GPU cannot be used if its driver is too old, if torch has no code for it, or if other programs
    have all of its memory. The result is the first sentence of torch's message.
    """
    try:
        # Reading a value waits for the GPU. It also refuses `meta`, whose tensors have no values.
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as err:
        return first_line(err).partition(". ")[0]
    return ""
