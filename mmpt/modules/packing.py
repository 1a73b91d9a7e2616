"""Sequences of different lengths with little padding: all tokens of a batch in one row.

Sequences are sorted by length and divided into a few groups of similar lengths. Within a group,
every sequence is padded to the longest one, so that the group is a view of the row with regular
shape, and attention within it needs only a small mask. All other layers of BERT process each token
separately, so they need no change.

The attention function is registered with transformers under the name `PACKED`. A model whose
config names it accepts packed tokens [1, S, D] together with `groups`. For ordinary padded batches
it uses scaled-dot-product attention.

torch has two functions for such batches, but neither is suitable: jagged tensors take longer to
dispatch on the host than twenty groups, and `varlen_attn` has no dropout.

Legend: N sequences, P positions, S stored tokens (real tokens and the padding of groups), H heads,
D hidden size, d width of a head.
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
"""Attention kernels that may be used: all except cuDNN's.

torch may prefer cuDNN on a GPU. cuDNN builds and stores a plan for every new shape, and most
groups of a batch have a shape that did not occur before.
"""
CPU_GROUP_FLOPS = 1e7
GPU_GROUP_FLOPS = 1e10
"""Cost of one more group in one layer: the operations that the device could do in the time that it
takes to start the group."""


class Group(NamedTuple):
    """Sequences of similar lengths, stored one after another and padded to the longest of them."""

    num_sequences: int
    length: int
    """Tokens of each sequence, including padding."""
    mask: Tensor | None
    """bool [num_sequences, 1, 1, length], True = real. None: there is no padding."""

    def separate(self, tokens: Tensor) -> Tensor:
        """Returns the group's tokens [H, num_tokens, d] as [num_sequences, H, length, d]."""
        sequences = tokens.unflatten(1, (self.num_sequences, self.length))
        return sequences.transpose(0, 1)


class Packing(NamedTuple):
    """The tokens of a batch in the order in which they are computed."""

    positions: Tensor
    """int64 [S], position n * P + p of each stored token in the flat batch. Sequences are in the
    order of their length. In a sequence the real tokens come first."""
    is_real: Tensor
    """bool [S], False for padding."""
    groups: tuple[Group, ...]
    """In ascending order of length."""
    shape: tuple[int, int]
    """N and P."""

    def pack(self, values: Tensor) -> Tensor:
        """Returns the stored tokens [S, ...] of a batch [N, P, ...]."""
        return values.flatten(0, 1)[self.positions]

    def unpack(self, packed_SD: Tensor) -> Tensor:
        """Returns the batch [N, P, D] of stored tokens. It is zero where no token is real."""
        num_sequences, num_positions = self.shape
        hidden_size = packed_SD.shape[1]
        is_padding = ~self.is_real
        real_SD = packed_SD.masked_fill(is_padding[:, None], 0)
        empty = packed_SD.new_zeros(num_sequences * num_positions, hidden_size)
        # `index_copy` would keep its source for backward; `index_put` does not.
        flat = empty.index_put((self.positions,), real_SD)
        return flat.view(num_sequences, num_positions, hidden_size)


def choose_group_lengths(counts: Sequence[int], max_padding: float) -> list[int]:
    """Divides sequences into groups of similar lengths, and returns the length of each group.

    Args:
        counts: number of sequences of length 0, 1, 2 and so on. Empty sequences are left out.
        max_padding: largest number of padding tokens in a group.
    Returns:
        Lengths in ascending order. A group holds all sequences that are longer than the previous
        group's length and at most as long as its own.
    """
    # Both padding and groups cost time. Suppose that each length has r sequences. Then a group of
    # k neighbouring lengths needs r k^2 / 2 tokens of padding. If a group itself costs as much as
    # c tokens, L lengths cost (L / k) (c + r k^2 / 2) in all. That is lowest for r k^2 / 2 = c,
    # where the padding of a group costs as much as the group. Hence this rule: starting with the
    # longest sequences, a group takes the next shorter ones until its padding exceeds c.
    lengths: list[int] = []
    padding = 0
    for length in reversed(range(1, len(counts))):
        num_sequences = counts[length]
        if num_sequences == 0:
            continue
        if lengths:
            padding += num_sequences * (lengths[-1] - length)
        if not lengths or padding > max_padding:
            lengths.append(length)
            padding = 0
    return lengths[::-1]


def plan_packing(mask_NP: Tensor, max_padding: float) -> Packing:
    """Returns the packing of the positions where `mask_NP` (bool) is True.

    Waits for the device once, for the number of sequences of each length.

    Args:
        max_padding: largest number of padding tokens in a group.
    """
    # Sort the sequences by length, and count them by length.
    num_sequences, num_positions = mask_NP.shape
    lengths_N, order_N = mask_NP.sum(dim=1).sort(stable=True)
    all_lengths = torch.arange(num_positions + 1, device=mask_NP.device)
    has_length = lengths_N == all_lengths[:, None]
    counts = has_length.sum(dim=1).tolist()

    # In each sequence move the real tokens to the front, without changing their order.
    is_padding_NP = ~mask_NP[order_N]
    real_first_NP = is_padding_NP.to(torch.uint8).argsort(dim=1, stable=True)
    starts_N = order_N * num_positions
    positions_NP = real_first_NP + starts_N[:, None]
    is_real_NP = all_lengths[:num_positions] < lengths_N[:, None]

    # A group is now a rectangle at the left edge of the sorted batch: its sequences, up to its
    # length. Sequences without a real token are the first rows, and belong to no group.
    positions = []
    is_real = []
    groups = []
    shorter = 0
    start = counts[0]
    for length in choose_group_lengths(counts, max_padding):
        num_rows = sum(counts[shorter + 1 : length + 1])
        stop = start + num_rows
        rectangle = slice(start, stop), slice(length)
        is_real_in_group = is_real_NP[rectangle]
        positions.append(positions_NP[rectangle].flatten())
        is_real.append(is_real_in_group.flatten())
        mask = None
        if num_rows > counts[length]:  # some sequences are shorter
            mask = is_real_in_group[:, None, None]
        groups.append(Group(num_rows, length, mask))
        shorter = length
        start = stop
    return Packing(
        positions=torch.cat(positions),
        is_real=torch.cat(is_real),
        groups=tuple(groups),
        shape=(num_sequences, num_positions),
    )


def run_packed(
    bert: BertModel, mask_NP: Tensor, position_ids_NP: Tensor, **inputs_NP: Tensor
) -> Tensor:
    """Returns BERT's last hidden states [N, P, D]. They are zero where the mask is False.

    Args:
        bert: a model with `PACKED` attention.
        mask_NP: bool, True for real tokens. The real tokens of a sequence attend to each other.
        position_ids_NP: int64.
        inputs_NP: `input_ids`, int64 [N, P], or `inputs_embeds`, float [N, P, D].
    """
    # A token takes about 24 D^2 operations in a layer.
    token_flops = 24 * bert.config.hidden_size**2
    is_cpu = mask_NP.device.type == "cpu"
    group_flops = CPU_GROUP_FLOPS if is_cpu else GPU_GROUP_FLOPS
    packing = plan_packing(mask_NP, max_padding=group_flops / token_flops)

    # BERT gets a batch of one row.
    inputs_NP["position_ids"] = position_ids_NP
    row = {}
    for name, values in inputs_NP.items():
        row[name] = packing.pack(values)[None]
    with sdpa_kernel(KERNELS):
        output = bert(**row, groups=packing.groups)
    packed_SD = output.last_hidden_state[0]
    return packing.unpack(packed_SD)


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
    """Computes attention within each sequence of packed tokens.

    Args:
        query, key, value: float [1, H, S, d].
        attention_mask: None for packed tokens.
        groups: as in `Packing`. None: an ordinary batch, for which transformers' own
            scaled-dot-product attention is called.
    Returns:
        float [1, S, H, d], and None for the attention weights, which are never computed.
    """
    if groups is None:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            **kwargs,
        )
    assert attention_mask is None, "packed tokens need no mask"
    sizes = [group.num_sequences * group.length for group in groups]
    assert sum(sizes) == query.shape[2], (sizes, query.shape)

    # `split` instead of slices: the gradient of a slice is as large as the whole tensor.
    queries = query[0].split(sizes, dim=1)
    keys = key[0].split(sizes, dim=1)
    values = value[0].split(sizes, dim=1)
    outputs = []
    for group, q, k, v in zip(groups, queries, keys, values, strict=True):
        attended = scaled_dot_product_attention(
            group.separate(q),
            group.separate(k),
            group.separate(v),
            group.mask,
            dropout_p=dropout,
            scale=scaling,
        )
        # Back to one row of tokens, [tokens, H, d].
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[None], None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
