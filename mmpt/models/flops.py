"""Floating-point operations of the two towers on real tokens, and what devices can do at most.

Counted are the matrix products of the transformer layers, two operations per multiply-add; a frozen layer needs one
product less in backward, that for its weights' gradient. Embeddings, norms, the loss and all that is computed twice to
save memory are not counted, so that the figure is comparable between implementations.
"""

from __future__ import annotations

import torch
from transformers import BertModel

PEAK_TFLOPS = {
    "H200": 989.0, "H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0,
    "A40": 150.0, "A10": 125.0, "V100": 125.0, "T4": 65.0,
}  # fmt: skip
"""Dense float16 (for all but the last two also bfloat16) tensor-core TFLOP/s by a part of the device's name, from
NVIDIA's data sheets; the first that fits counts."""


def tower_flops(bert: BertModel, lengths_N: torch.Tensor, *, training: bool = True) -> torch.Tensor:
    """Return the operations of one pass over sequences of `lengths_N` real tokens, as a scalar float64 on its device.

    Args:
        lengths_N: integers, real tokens of each sequence.
        training: count the backward pass too.
    """
    config = bert.config
    width, inner = config.hidden_size, config.intermediate_size
    lengths_N = lengths_N.double()
    frozen = not bert.encoder.layer[0].attention.self.query.weight.requires_grad
    weights = 2 * (4 * width * width + 2 * width * inner) * lengths_N.sum()
    attention = 4 * width * (lengths_N**2).sum()
    if training:
        weights, attention = weights * (2 if frozen else 3), attention * 3
    return config.num_hidden_layers * (weights + attention)


def peak_tflops(device: torch.device) -> float | None:
    """Return the device's greatest half-precision TFLOP/s, or None where that is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
