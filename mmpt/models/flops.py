"""Floating-point operations of the two towers on real tokens.

Counted are the matrix products of the transformer layers, two operations per multiply-add; a frozen
layer needs one product less in backward, that for its weights' gradient. Embeddings, norms, the
loss and all that is computed twice to save memory are not counted, so that the figure is comparable
between implementations.
"""

import torch
from transformers import BertModel


def tower_flops(bert: BertModel, lengths: torch.Tensor, *, training: bool = True) -> torch.Tensor:
    """Returns the operations of one pass over sequences of `lengths` real tokens, as a scalar
    float64 on its device.

    Args:
        lengths: integers of any shape, real tokens of each sequence.
        training: count the backward pass too.
    """
    config = bert.config
    width, inner = config.hidden_size, config.intermediate_size
    lengths = lengths.double()
    frozen = not bert.encoder.layer[0].attention.self.query.weight.requires_grad
    weights = 2 * (4 * width * width + 2 * width * inner) * lengths.sum()
    attention = 4 * width * (lengths**2).sum()
    if training:
        weights, attention = weights * (2 if frozen else 3), attention * 3
    return config.num_hidden_layers * (weights + attention)
