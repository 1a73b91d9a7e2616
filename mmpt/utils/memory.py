"""Memory of this process, for the log line of training."""

from __future__ import annotations

import psutil
import torch


def memory_gb() -> float:
    """Returns the GB that this process holds: on the GPU if it uses one, else resident in RAM.

    On a GPU that is what torch has reserved. Its peak is of no use here, because fairseq resets the
    peak just before it asks.
    """
    if torch.cuda.is_available() and torch.cuda.memory_reserved():
        return torch.cuda.memory_reserved() / 1e9
    return psutil.Process().memory_info().rss / 1e9
