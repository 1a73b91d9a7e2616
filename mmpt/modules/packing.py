"""Sequences of different lengths with little padding: all tokens of a batch in one row.

Sequences are sorted by length and cut into a few groups of similar lengths. Within a group every
sequence is padded to the longest one, so that attention over the group is a view of the row with a
small mask. Every other layer of BERT treats tokens one by one and needs no change. The attention
function is registered with transformers under `PACKED`. A model whose config names it runs packed
tokens [1, S, D] with `groups`, and ordinary batches like scaled-dot-product attention.

torch's own forms do not fit: jagged tensors take longer to dispatch on the host than twenty groups,
and `varlen_attn` has no dropout.

Legend: N sequences, P positions, S stored tokens (real ones and the padding of groups), H heads, D
hidden size, d width of a head.
"""

from collections.abc import Sequence
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
and most groups of a batch have a number of rows that none had before."""


GROUP_FLOPS = {"cpu": 1e7, "cuda": 1e10}
"""Operations that a device can do in the time that one more group takes to start in one layer."""


class Group(NamedTuple):
    """Sequences of similar lengths, stored one after another and padded to the longest of them."""

    rows: int
    length: int
    mask: Tensor | None  # bool [rows, 1, 1, length], True = real; None: no padding


class Packing(NamedTuple):
    """The tokens of a batch in the order in which they are computed."""

    positions: Tensor  # int64 [S], n * P + p: sequences by length, real tokens first
    real: Tensor  # bool [S]
    groups: tuple[Group, ...]  # shortest sequences first
    shape: tuple[int, int]  # N, P

    def pack(self, values: Tensor) -> Tensor:
        """Returns the tokens [S, ...] of values [N, P, ...]."""
        return values.flatten(0, 1)[self.positions]

    def unpack(self, packed_SD: Tensor) -> Tensor:
        """Returns [N, P, D], zero where there is no real token."""
        num, width = self.shape
        empty = packed_SD.new_zeros(num * width, packed_SD.shape[1])
        real_SD = packed_SD.masked_fill(~self.real[:, None], 0)
        # Not index_copy, whose backward would keep its source.
        return empty.index_put((self.positions,), real_SD).view(num, width, -1)


def choose_groups(counts: Sequence[int], max_padding: float) -> list[int]:
    """Cuts sequences that are sorted by length into groups, and returns the length of each group.

    Padding costs time, and so does every group. A group of k neighbouring lengths with r sequences
    each needs r k^2 / 2 tokens of padding. If a group costs as much as c tokens, L lengths cost
    (L / k) (c + r k^2 / 2), which is least where r k^2 / 2 = c: where the padding of a group costs
    as much as the group. So sequences join the group of the next longer ones as long as that group
    has at most c tokens of padding.

    Args:
        counts: number of sequences of length 0, 1, 2 and so on. Those of length 0 are left out.
        max_padding: c.
    Returns:
        lengths in ascending order. A group holds the sequences that are longer than the group
        before it and at most as long as its length.
    """
    longest: list[int] = []
    padding = 0
    for length in reversed(range(1, len(counts))):
        if not counts[length]:
            continue
        if longest:
            padding += counts[length] * (longest[-1] - length)
        if not longest or padding > max_padding:
            longest.append(length)
            padding = 0
    return longest[::-1]


def plan_packing(mask_NP: Tensor, max_padding: float) -> Packing:
    """Returns the packing of the positions where `mask_NP` (bool) is True.

    Waits for the device once, to learn how many sequences there are of each length.

    Args:
        max_padding: most padded tokens of a group.
    """
    num, width = mask_NP.shape
    lengths_N, order_N = mask_NP.sum(dim=1).sort(stable=True)
    every_length = torch.arange(width + 1, device=mask_NP.device)
    counts = (lengths_N == every_length[:, None]).sum(dim=1).tolist()
    # In each row the positions of the real tokens, in order, and then the others.
    real_first_NP = (~mask_NP[order_N]).to(torch.uint8).argsort(dim=1, stable=True)
    positions_NP = real_first_NP + order_N[:, None] * width
    real_NP = every_length[:width] < lengths_N[:, None]

    positions, real, groups = [], [], []
    shorter, start = 0, counts[0]
    for length in choose_groups(counts, max_padding):
        rows = sum(counts[shorter + 1 : length + 1])
        block = slice(start, start + rows), slice(length)
        positions.append(positions_NP[block].flatten())
        real.append(real_NP[block].flatten())
        is_padded = rows > counts[length]
        groups.append(Group(rows, length, real_NP[block][:, None, None] if is_padded else None))
        shorter, start = length, start + rows
    return Packing(torch.cat(positions), torch.cat(real), tuple(groups), (num, width))


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
    flops = GROUP_FLOPS["cpu" if mask_NP.device.type == "cpu" else "cuda"]
    # A token takes about 24 D^2 operations in a layer.
    packing = plan_packing(mask_NP, flops / (24 * bert.config.hidden_size**2))
    inputs = {name: packing.pack(values)[None] for name, values in inputs_NP.items()}
    positions = packing.pack(position_ids_NP)[None]
    with sdpa_kernel(KERNELS):
        states = bert(**inputs, position_ids=positions, groups=packing.groups)
    return packing.unpack(states.last_hidden_state[0])


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    groups: tuple[Group, ...] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attends within each sequence; without `groups`, as scaled-dot-product attention does.

    Args:
        query, key, value: float [1, H, S, d].
        attention_mask: None for packed tokens.
        groups: as in `Packing`.
    Returns:
        float [1, S, H, d], and None for the weights, which are never formed.
    """
    if groups is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    assert attention_mask is None, "packed tokens need no mask"
    sizes = [group.rows * group.length for group in groups]
    assert sum(sizes) == query.shape[2], (sizes, query.shape)
    # Split, not sliced: the gradient of a slice is as large as the whole, that of a split is not.
    queries, keys, values = (heads[0].split(sizes, dim=1) for heads in (query, key, value))
    parts = []
    for group, *heads in zip(groups, queries, keys, values, strict=True):
        # Each is [rows, H, length, d].
        q, k, v = (x.unflatten(1, (group.rows, group.length)).transpose(0, 1) for x in heads)
        attended = scaled_dot_product_attention(
            q, k, v, group.mask, dropout_p=dropout, scale=scaling
        )
        parts.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)[None], None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
