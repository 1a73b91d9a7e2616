"""Sequences of different lengths without their padding: real tokens behind each other, attention among equals.

Tokens of sequences of one length lie together, so that attention over them is a view, without a mask and without a
copy of keys that a mask would discard; every other layer of BERT treats tokens one by one and needs no change. The
attention function is registered with transformers under `PACKED`; a model whose config says so runs packed tokens
[1, R, D] with `runs`, and ordinary batches like scaled-dot-product attention.

On a GPU neighbouring lengths share a run, whose shorter sequences keep a few padding slots, masked as keys: a call for
every length and layer would leave the GPU waiting for launches. (torch's jagged tensors need one call a layer, but
their dispatch takes the host longer than twenty such runs; its `varlen_attn` has no dropout.) That choice is by the
count of launches and by host time, not measured on a GPU; on the CPU a run for each length is the fastest.

Legend: N sequences, P positions, R slots computed (real tokens and few padding slots), H heads, D hidden size, d width
of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, BertModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mmpt.modules.buckets import choose_lengths

PACKED = "mmpt_packed"
"""Name of the attention function, for `attn_implementation` of a BertConfig."""
GPU_PADDING = 0.05
"""Most padding slots on a GPU, as a share of the real tokens: 11 runs instead of 36 lengths in the released recipe."""
ALIGNMENT = 8
"""Of the rows of what is added to attention scores; a fused kernel would copy what is not aligned, in every layer."""
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN's, which torch may prefer on a GPU: that makes a plan for every new shape and keeps it, and most runs
of a batch have a number of rows that none had before."""


class Run(NamedTuple):
    """Sequences that lie behind each other and are computed at one length."""

    rows: int
    length: int
    padded: bool = False  # some of them are shorter

    @property
    def slots(self) -> int:
        """Tokens and padding."""
        return self.rows * self.length


class Packing(NamedTuple):
    """Where the slots that are computed come from."""

    positions: torch.Tensor  # int64, n * P + p of every slot, sequences by length
    runs: tuple[Run, ...]  # shortest sequences first
    shape: tuple[int, int]  # N, P
    is_real: torch.Tensor | None = None  # bool [R], which slots are real tokens; None: all are

    def pack(self, values: torch.Tensor) -> torch.Tensor:
        """Return the slots [R, ...] of values [N, P, ...]."""
        return values.flatten(0, 1)[self.positions]

    def unpack(self, packed_RD: torch.Tensor) -> torch.Tensor:
        """Return [N, P, D], zero where there is no real token."""
        num, width = self.shape
        if self.is_real is not None:
            packed_RD = packed_RD.masked_fill(~self.is_real[:, None], 0)
        empty = packed_RD.new_zeros(num * width, packed_RD.shape[1])
        return empty.index_put((self.positions,), packed_RD).view(num, width, -1)  # index_copy would keep its source

    def biases(self, dtype: torch.dtype) -> tuple[torch.Tensor | None, ...]:
        """Return what is added to the attention scores of every run, [rows, 1, 1, length]: minus infinity where a key
        is padding; None where none is."""
        if self.is_real is None:
            return (None,) * len(self.runs)
        parts = zip(self.runs, self.is_real.split([run.slots for run in self.runs]), strict=True)
        return tuple(_bias(run, is_real, dtype) if run.padded else None for run, is_real in parts)


def _bias(run: Run, is_real: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    width = -(-run.length // ALIGNMENT) * ALIGNMENT
    bias = torch.zeros(run.rows, 1, 1, width, dtype=dtype, device=is_real.device)[..., : run.length]
    return bias.masked_fill_(~is_real.view(bias.shape), -torch.inf)


def plan_packing(mask_NP: torch.Tensor, max_padding: float | None = None) -> Packing:
    """Return the packing of the positions where `mask_NP` is True; waits for the device once, for the lengths.

    Args:
        mask_NP: bool.
        max_padding: most padding slots as a share of the real tokens; None: `GPU_PADDING` on a GPU, else 0.
    """
    if max_padding is None:
        max_padding = GPU_PADDING if mask_NP.is_cuda else 0.0
    num, width = mask_NP.shape
    columns_P = torch.arange(width, device=mask_NP.device)
    lengths_N, order_N = mask_NP.sum(dim=1).sort(stable=True)
    counts = (lengths_N == torch.arange(width + 1, device=mask_NP.device)[:, None]).sum(dim=1).tolist()
    real_first_NP = (~mask_NP[order_N]).to(torch.uint8).argsort(dim=1, stable=True)
    slots_NP = order_N[:, None] * width + real_first_NP
    real_NP = columns_P < lengths_N[:, None]
    runs, positions, real, begin, shorter = [], [], [], counts[0], 1
    for length in choose_lengths(counts, max_padding):
        rows = sum(counts[shorter : length + 1])
        runs.append(Run(rows, length, padded=rows > counts[length]))
        positions.append(slots_NP[begin : begin + rows, :length].flatten())
        real.append(real_NP[begin : begin + rows, :length].flatten())
        begin, shorter = begin + rows, length + 1
    some_padded = any(run.padded for run in runs)
    return Packing(torch.cat(positions), tuple(runs), (num, width), torch.cat(real) if some_padded else None)


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
    positions = packing.pack(position_ids_NP)[None]
    with sdpa_kernel(KERNELS):
        states = bert(**inputs, position_ids=positions, runs=packing.runs, biases=packing.biases(bert.dtype))
    return packing.unpack(states.last_hidden_state[0])


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    runs: tuple[Run, ...] | None = None,
    biases: tuple[torch.Tensor | None, ...] = (),
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each sequence of packed tokens; without `runs`, as scaled-dot-product attention does.

    Args:
        query, key, value: float [1, H, R, d].
        attention_mask: None for packed tokens.
        runs, biases: as in `Packing`.
    Returns:
        float [1, R, H, d], and None for the weights, which are never formed.
    """
    if runs is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    assert attention_mask is None, "packed tokens need no mask"
    sizes = [run.slots for run in runs]
    assert sum(sizes) == query.shape[2], (runs, query.shape)
    parts = []
    # Not slices: the gradient of a slice is as large as the whole, that of a split is not.
    for run, bias, *heads in zip(runs, biases, *(x[0].split(sizes, dim=1) for x in (query, key, value)), strict=True):
        q, k, v = (x.unflatten(1, (run.rows, run.length)).transpose(0, 1) for x in heads)  # [rows, H, length, d]
        attended = scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scaling)
        parts.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)[None], None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
