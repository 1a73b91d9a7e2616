"""Texts through the text tower, in batches of any size.

Legend: N items, T text slots, D hidden size.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from numbers import Integral
from typing import TypeVar

import torch

from mmpt.errors import DataError
from mmpt.losses.precision import upcast
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
    """Returns pooled vectors [N, D], float32 or wider, of word-piece ids, of which the first T - 3
    count.

    Texts of like length share a batch, which is padded no further than its longest one.

    Args:
        num_slots: T.
        batch_size: texts at once.
    """
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    caps, cmasks = stack_texts([ids[place] for place in order], num_slots, special)
    device = next(fusion.parameters()).device
    parts = []
    for rows in batches(range(len(ids)), batch_size):
        longest = int(cmasks[rows[-1]].sum())
        chunk = slice(rows[0], rows[-1] + 1)
        caps_NT, cmasks_NT = caps[chunk, :longest].to(device), cmasks[chunk, :longest].to(device)
        parts.append(upcast(fusion.forward_text(caps_NT, cmasks_NT)[0]))
    vectors = torch.cat(parts)
    return torch.empty_like(vectors).index_copy_(0, torch.tensor(order, device=device), vectors)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cuts a stream into lists of `size`; the last may be shorter.

    Raises:
        DataError: a size that is no whole number of at least 1.
    """
    if not isinstance(size, Integral) or size < 1:
        raise DataError(f"`batch_size` must be a whole number of at least 1, but is {size}.")
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
