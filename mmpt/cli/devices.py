"""The device that a command was asked to run on."""

from __future__ import annotations

import torch

from mmpt.errors import LaunchError


def choose_device(name: str | None) -> torch.device:
    """Return the device called `name`, or the first GPU, else the CPU; LaunchError when this
    machine has none such.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.ones(1, device=device).item()  # which `meta` has not
    except (RuntimeError, AssertionError) as err:  # unknown name, or a build of torch without it
        raise LaunchError(
            f"--device {name}: not a device of this machine ({str(err).splitlines()[0]})."
        ) from err
    return device
