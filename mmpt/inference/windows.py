"""Windows of videos through the video tower, and texts through the text tower, in batches of any
size.

Legend: N items, F most seconds of a window, I feature width, T text slots, D hidden size.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from mmpt.errors import DataError
from mmpt.losses.precision import wide
from mmpt.models.mmfusion import MMFusionSeparate
from mmpt.processors.tensorise import stack_texts
from mmpt.processors.tokenizer import SpecialTokens
from mmpt.processors.window_aligner import Span, window_spans

T = TypeVar("T")


class Window(NamedTuple):
    """Some seconds of one video, embedded. Vectors are float32 or wider."""

    video: int  # position in the list of videos
    span: Span  # start and end, exclusive, in seconds
    share: float  # of the video's seconds
    vector: torch.Tensor  # float [D], pooled
    states: torch.Tensor  # float [seconds, D]


def embed_windows(
    fusion: MMFusionSeparate,
    special: SpecialTokens,
    videos: Iterable[torch.Tensor],
    size: int,
    stride: int,
    batch_size: int,
) -> Iterator[Window]:
    """Yields windows of `size` seconds that cover all of each video; its last may be shorter.

    Args:
        videos: float [seconds, I]; each is asked for when a batch reaches it.
        stride: seconds from one window to the next.
        batch_size: windows at once.
    Raises:
        DataError: windows that would leave seconds out, or a batch size below 1.
    """
    if not 0 < stride <= size:
        raise DataError(f"`stride` must be 1 to {size} seconds, but is {stride}.")
    cut = (
        (video, span, features)
        for video, features in enumerate(videos)
        for span in window_spans(len(features), stride, size)
    )
    for batch in batches(cut, batch_size):
        parts = [features[slice(*span)] for _, span, features in batch]
        vfeats = nn.utils.rnn.pad_sequence(parts, batch_first=True)
        lengths = torch.tensor([len(part) for part in parts], device=vfeats.device)
        vmasks = torch.arange(vfeats.shape[1], device=vfeats.device) < lengths[:, None]
        caps = torch.tensor([[special.cls, special.sep]], device=vfeats.device)
        caps = caps.expand(len(parts), -1)
        pooled, states, _ = fusion.forward_video(
            vfeats, vmasks, caps, torch.ones_like(caps, dtype=torch.bool)
        )
        pooled, states = wide(pooled), wide(states)
        for row, (video, span, features) in enumerate(batch):
            seconds = len(parts[row])
            share = seconds / len(features)
            yield Window(video, span, share, pooled[row], states[row, 1 : 1 + seconds])


def embed_texts(
    fusion: MMFusionSeparate,
    ids: Sequence[list[int]],
    special: SpecialTokens,
    num_slots: int,
    batch_size: int,
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
        parts.append(wide(fusion.forward_text(caps_NT, cmasks_NT)[0]))
    vectors = torch.cat(parts)
    return torch.empty_like(vectors).index_copy_(0, torch.tensor(order, device=device), vectors)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cuts a stream into lists of `size`; the last may be shorter.

    Raises:
        DataError: a size below 1.
    """
    if size < 1:
        raise DataError(f"`batch_size` must be at least 1, but is {size}.")
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
