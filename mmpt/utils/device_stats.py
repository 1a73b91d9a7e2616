"""Statistics of the device for the training log: memory in use, and its peak performance."""

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
"""Dense tensor-core TFLOP/s in float16, by a part of the device's name; the first match is used.

From NVIDIA's data sheets. All but the last two devices have the same figure for bfloat16.
"""


def peak_tflops(device: torch.device) -> float | None:
    """Returns the device's peak TFLOP/s in half precision, or None if it is unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def memory_gb() -> float:
    """Returns the memory of this process in GB (1e9 bytes): of the GPU if it uses one, else of RAM.

    For a GPU it is the memory that torch has reserved. The peak of the allocated memory cannot be
    used, because fairseq resets it just before it reads these statistics.
    """
    if torch.cuda.is_available() and torch.cuda.memory_reserved():
        return torch.cuda.memory_reserved() / 1e9
    return psutil.Process().memory_info().rss / 1e9
