"""Sequences of different lengths without padding: one row of real tokens for all of them.

Tokens of sequences of equal length lie together, so that attention over them is a view, without a
mask and without a copy of keys that a mask would discard; every other layer of BERT treats tokens
one by one and needs no change. The attention function is registered with transformers under
`PACKED`; a model whose config says so runs packed tokens [1, R, D] with `runs`, and ordinary
batches like scaled-dot-product attention.

torch's own forms do not fit: jagged tensors take longer to dispatch on the host than twenty runs,
and `varlen_attn` has no dropout.

Legend: N sequences, P positions, R real tokens of all sequences, H heads, D hidden size, d width
of a head.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, BertModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "mmpt_packed"
"""Name of the attention function, for `attn_implementation` of a BertConfig."""
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN's, which torch may prefer on a GPU: it makes and keeps a plan for every new shape,
and most runs of a batch have a number of rows that none had before."""


class Run(NamedTuple):
    """Sequences of one length, stored one after another."""

    rows: int
    length: int


class Packing(NamedTuple):
    """The real tokens of a batch, in the order in which they are computed."""

    positions: Tensor  # int64 [R], n * P + p: sequences by length, tokens in order
    runs: tuple[Run, ...]  # shortest sequences first
    shape: tuple[int, int]  # N, P

    def pack(self, values: Tensor) -> Tensor:
        """Returns the tokens [R, ...] of values [N, P, ...]."""
        return values.flatten(0, 1)[self.positions]

    def unpack(self, packed_RD: Tensor) -> Tensor:
        """Returns [N, P, D], zero where there is no real token."""
        num, width = self.shape
        empty = packed_RD.new_zeros(num * width, packed_RD.shape[1])
        # Not index_copy, whose backward would keep its source.
        return empty.index_put((self.positions,), packed_RD).view(num, width, -1)


def plan_packing(mask_NP: Tensor) -> Packing:
    """Returns the packing of the positions where `mask_NP` (bool) is True.

    Waits for the device once, to learn how many sequences there are of each length.
    """
    num, width = mask_NP.shape
    lengths_N, order_N = mask_NP.sum(dim=1).sort(stable=True)
    every_length = torch.arange(width + 1, device=mask_NP.device)
    counts = (lengths_N == every_length[:, None]).sum(dim=1).tolist()
    runs = tuple(Run(rows, length) for length, rows in enumerate(counts) if length and rows)
    # A stable sort that puts real positions first keeps the order of sequences and tokens. Their
    # number is known from the runs; nonzero() would wait for the device again.
    real_first = (~mask_NP[order_N]).flatten().to(torch.uint8).argsort(stable=True)
    real_R = real_first[: sum(run.rows * run.length for run in runs)]
    positions = order_N[real_R // width] * width + real_R % width
    return Packing(positions, runs, (num, width))


def run_packed(
    bert: BertModel, mask_NP: Tensor, position_ids_NP: Tensor, **inputs_NP: Tensor
) -> Tensor:
    """Returns the last hidden states [N, P, D] where the mask is True, and zeros elsewhere.

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
        states = bert(**inputs, position_ids=positions, runs=packing.runs)
    return packing.unpack(states.last_hidden_state[0])


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    runs: tuple[Run, ...] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attends within each sequence; without `runs`, as scaled-dot-product attention does.

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
    # Split, not sliced: the gradient of a slice is as large as the whole, that of a split is not.
    queries, keys, values = (heads[0].split(sizes, dim=1) for heads in (query, key, value))
    parts = []
    for run, *heads in zip(runs, queries, keys, values, strict=True):
        # Each is [rows, H, length, d].
        q, k, v = (x.unflatten(1, (run.rows, run.length)).transpose(0, 1) for x in heads)
        attended = scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        parts.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)[None], None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
