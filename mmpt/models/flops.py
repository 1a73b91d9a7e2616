"""Floating-point operations of the two towers on real tokens.

Counted are the matrix products of the transformer layers, with two operations per multiply-add.
The backward pass of a layer has two products for each one of the forward pass, or one if its
weights are frozen and need no gradient. Embeddings, norms and the loss are not counted, nor is
what is computed again to save memory. The figure is therefore comparable between implementations.
"""

import torch
from transformers import BertModel


def tower_flops(bert: BertModel, lengths: torch.Tensor, *, training: bool = True) -> torch.Tensor:
    """Returns the operations of one pass over sequences, a scalar float64 on the device of
    `lengths`.

    Args:
        lengths: integers of any shape, the number of real tokens of each sequence.
        training: also count the backward pass.
    """
    config = bert.config
    width, inner = config.hidden_size, config.intermediate_size
    lengths = lengths.double()

    # Per token: four products with weights of D x D (query, key, value, output of attention), and
    # two with weights of D x inner size (feed-forward). Per pair of tokens: two products of width
    # D (attention scores, and the sum of the values).
    weight_flops = 2 * (4 * width * width + 2 * width * inner) * lengths.sum()
    attention_flops = 4 * width * (lengths**2).sum()
    if training:
        is_frozen = not bert.encoder.layer[0].attention.self.query.weight.requires_grad
        weight_flops = weight_flops * (2 if is_frozen else 3)
        attention_flops = attention_flops * 3
    return config.num_hidden_layers * (weight_flops + attention_flops)
