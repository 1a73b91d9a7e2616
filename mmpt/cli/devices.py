"""The device that a command was asked to run on."""

from __future__ import annotations

import torch

from mmpt.errors import LaunchError


def choose_device(name: str | None) -> torch.device:
    """Return the device called `name`, or the first GPU, else the CPU; LaunchError when this machine has none such."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as err:  # unknown name, or a build of torch without it
        raise LaunchError(f"--device {name}: not a device of this machine ({str(err).splitlines()[0]}).") from err
    return device
