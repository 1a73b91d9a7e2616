"""Figures of a device for the log line of training: memory in use, and the most it can compute."""

import psutil
import torch

PEAK_TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A40": 150.0,
    "A10": 125.0,
    "V100": 125.0,
    "T4": 65.0,
}
"""Dense float16 (for all but the last two also bfloat16) tensor-core TFLOP/s by a part of the
device's name, from NVIDIA's data sheets; the first that fits counts."""


def peak_tflops(device: torch.device) -> float | None:
    """Returns the device's greatest half-precision TFLOP/s, or None where that is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def memory_gb() -> float:
    """Returns the GB that this process holds: on the GPU if it uses one, else resident in RAM.

    On a GPU that is what torch has reserved. Its peak is of no use here, because fairseq resets the
    peak just before it asks.
    """
    if torch.cuda.is_available() and torch.cuda.memory_reserved():
        return torch.cuda.memory_reserved() / 1e9
    return psutil.Process().memory_info().rss / 1e9
