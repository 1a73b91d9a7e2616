"""What a device can compute at most, to judge a speed by."""

from __future__ import annotations

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
    """Return the device's greatest half-precision TFLOP/s, or None where that is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
