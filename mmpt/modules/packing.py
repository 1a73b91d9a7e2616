"""Sequences of different lengths without their padding: real tokens behind each other, attention among equals.

Tokens of sequences of one length lie together, so that attention over them is a view, without a mask and without a
copy of keys that a mask would discard; every other layer of BERT treats tokens one by one and needs no change. The
attention function is registered with transformers under `PACKED`; a model whose config says so runs packed tokens
[1, R, D] with `runs`, and ordinary batches like scaled-dot-product attention.

Legend: N sequences, P positions, R real tokens of all of them, H heads, D hidden size, d width of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, BertModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "mmpt_packed"
"""Name of the attention function, for `attn_implementation` of a BertConfig."""


class Run(NamedTuple):
    """Sequences of one length that lie behind each other."""

    rows: int
    length: int


class Packing(NamedTuple):
    """Where the real tokens of a batch of sequences are."""

    positions: torch.Tensor  # int64, n * P + p of every real token, sequences by length
    runs: tuple[Run, ...]  # shortest sequences first
    shape: tuple[int, int]  # N, P

    def pack(self, values: torch.Tensor) -> torch.Tensor:
        """Return the real tokens [R, ...] of values [N, P, ...]."""
        return values.flatten(0, 1)[self.positions]

    def unpack(self, packed_RD: torch.Tensor) -> torch.Tensor:
        """Return [N, P, D], zero where there is no real token."""
        num, width = self.shape
        empty = packed_RD.new_zeros(num * width, packed_RD.shape[1])
        return empty.index_copy(0, self.positions, packed_RD).view(num, width, -1)


def plan_packing(mask_NP: torch.Tensor) -> Packing:
    """Return the packing of the positions where `mask_NP` (bool) is True; asks the device for the lengths once."""
    lengths_N = mask_NP.sum(dim=1)
    order_N = lengths_N.argsort(stable=True)
    num, width = mask_NP.shape
    places_NP = order_N[:, None] * width + torch.arange(width, device=mask_NP.device)
    counts = torch.bincount(lengths_N, minlength=width + 1).tolist()
    runs = tuple(Run(count, length) for length, count in enumerate(counts) if count and length)
    return Packing(places_NP[mask_NP[order_N]], runs, (num, width))


def run_packed(
    bert: BertModel, mask_NP: torch.Tensor, position_ids_NP: torch.Tensor, **inputs_NP: torch.Tensor
) -> torch.Tensor:
    """Return the last hidden states [N, P, D] of the positions where the mask is True, and zeros elsewhere.

    Args:
        bert: with `PACKED` attention.
        mask_NP: bool, the real tokens, which attend to each other.
        position_ids_NP: int64.
        inputs_NP: `input_ids` int64 [N, P] or `inputs_embeds` float [N, P, D].
    """
    packing = plan_packing(mask_NP)
    inputs = {name: packing.pack(values)[None] for name, values in inputs_NP.items()}
    states = bert(**inputs, position_ids=packing.pack(position_ids_NP)[None], runs=packing.runs)
    return packing.unpack(states.last_hidden_state[0])


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    runs: tuple[Run, ...] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each sequence of packed tokens; without `runs`, as scaled-dot-product attention does.

    Args:
        query, key, value: float [1, H, R, d].
        attention_mask: None for packed tokens.
        runs: as in `Packing`.
    Returns:
        float [1, R, H, d], and None for the weights, which are never formed.
    """
    if runs is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    assert attention_mask is None, "packed tokens need no mask"
    sizes = [run.rows * run.length for run in runs]
    assert sum(sizes) == query.shape[2], (runs, query.shape)
    parts = []
    # Not slices: the gradient of a slice is as large as the whole, that of a split is not.
    for (rows, length), *heads in zip(runs, *(x[0].split(sizes, dim=1) for x in (query, key, value)), strict=True):
        q, k, v = (x.unflatten(1, (rows, length)).transpose(0, 1) for x in heads)
        attended = scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)  # [rows, H, length, d]
        parts.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)[None], None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
