"""Embeds texts with the text tower, in batches.

Legend: N texts, T text slots, D hidden size.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from numbers import Integral
from typing import TypeVar

import torch

from mmpt.errors import DataError
from mmpt.losses.base import upcast
from mmpt.models.mmfusion import MMFusionSeparate
from mmpt.processors.tensorise import stack_texts
from mmpt.processors.tokenizer import SpecialTokens

T = TypeVar("T")


def embed_texts(
    fusion: MMFusionSeparate,
    ids: Sequence[list[int]],
    special: SpecialTokens,
    num_slots: int,
    batch_size: int = 256,
) -> torch.Tensor:
    """Returns the pooled vectors of texts, [N, D], in float32 or float64.

    Args:
        fusion: the two towers.
        ids: word-piece ids of each text, without special tokens. Only the first T - 3 are used.
        special: ids of the special tokens.
        num_slots: T.
        batch_size: number of texts in a batch.
    """
    # Texts are sorted by length. A batch then has texts of similar lengths, and is padded only to
    # its longest text, which is its last one.
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    caps, cmasks = stack_texts([ids[index] for index in order], num_slots, special)
    device = next(fusion.parameters()).device
    outputs = []
    for rows in batches(range(len(ids)), batch_size):
        longest = int(cmasks[rows[-1]].sum())
        chunk = slice(rows[0], rows[-1] + 1)
        caps_NT = caps[chunk, :longest].to(device)
        cmasks_NT = cmasks[chunk, :longest].to(device)
        pooled_ND = fusion.forward_text(caps_NT, cmasks_NT)[0]
        outputs.append(upcast(pooled_ND))

    # Restore the order of the caller.
    sorted_ND = torch.cat(outputs)
    original_rows = torch.tensor(order, device=device)
    return torch.empty_like(sorted_ND).index_copy_(0, original_rows, sorted_ND)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` consecutive items. The last one may be shorter.

    Raises:
        DataError: `size` is not a whole number of at least 1.
    """
    if not isinstance(size, Integral) or size < 1:
        raise DataError(f"`batch_size` must be a whole number of at least 1, but is {size}.")
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
