"""Embeds texts and windows of videos with the two towers, in batches.

Legend: N texts or windows, T text slots, L feature rows and S seconds of a video, F rows of a
window, D hidden size, I width of the features.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from mmpt.errors import DataError
from mmpt.losses.base import upcast
from mmpt.processors.sampling import Span
from mmpt.processors.tensorise import NUM_SPECIAL, stack_texts
from mmpt.processors.tokenizer import SpecialTokens
from mmpt.processors.window_aligner import (
    average_seconds,
    average_windows,
    window_spans,
)
from mmpt.utils.log import get_logger

if TYPE_CHECKING:
    # The import takes seconds, and evaluations are checked without a model.
    from mmpt.models.mmfusion import MMFusionSeparate

T = TypeVar("T")

logger = get_logger(__name__)


class Window(NamedTuple):
    """An embedded window of a video."""

    video: int
    """Position of the video in the list of videos."""
    span: Span
    """Start and end (exclusive) in feature rows."""
    share: float
    """The window's share of the rows of the video."""
    pooled: Tensor
    """[D], pooled vector, in float32 or float64."""
    states: Tensor
    """[rows, D], state of each row, in float32 or float64."""


def tokenise_texts(tokenizer: Any, texts: list[str], num_slots: int) -> list[list[int]]:
    """Returns the word-piece ids of texts, without special tokens.

    Logs a warning if texts are longer than T - 3 word pieces, or if the vocabulary knows none of
    the words of a text.

    Args:
        tokenizer: the tokenizer of the model.
        texts: the texts.
        num_slots: T.
    """
    # Without `verbose`, transformers does not warn that long texts result in indexing errors. They
    # do not, because the ids are cut.
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    max_ids = num_slots - NUM_SPECIAL
    num_long = sum(len(ids_of_text) > max_ids for ids_of_text in ids)
    if num_long:
        logger.warning(
            "%d of %d texts were cut to their first %d word pieces, the most that the model takes",
            *(num_long, len(texts), max_ids),
        )
    unknown = []
    for text, ids_of_text in zip(texts, ids, strict=True):
        if set(ids_of_text) == {tokenizer.unk_token_id}:
            unknown.append(text)
    if unknown:
        logger.warning(
            "%d of %d texts have no word that the vocabulary of the model knows, so their vectors "
            "are meaningless; the first one is %r",
            *(len(unknown), len(texts), unknown[0][:60]),
        )
    return ids


def embed_texts(
    fusion: "MMFusionSeparate",
    ids: Sequence[list[int]],
    special: SpecialTokens,
    num_slots: int,
    batch_size: int = 256,
) -> Tensor:
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
    sorted_ids = [ids[index] for index in order]
    caps, cmasks = stack_texts(sorted_ids, num_slots, special)
    lengths = cmasks.sum(dim=1).tolist()
    device = next(fusion.parameters()).device
    outputs = []
    for rows in batches(range(len(ids)), batch_size):
        longest = lengths[rows[-1]]
        caps_NT = caps[rows, :longest].to(device)
        cmasks_NT = cmasks[rows, :longest].to(device)
        pooled_ND = fusion.forward_text(caps_NT, cmasks_NT)[0]
        outputs.append(upcast(pooled_ND))

    # Restore the order of the caller.
    sorted_ND = torch.cat(outputs)
    original_ND = torch.empty_like(sorted_ND)
    original_ND[order] = sorted_ND
    return original_ND


def embed_windows(
    fusion: "MMFusionSeparate",
    videos: Iterable[Tensor],
    special: SpecialTokens,
    *,
    length: int,
    stride: int,
    batch_size: int = 64,
) -> Iterator[Window]:
    """Embeds windows that cover each video.

    Args:
        fusion: the two towers.
        videos: features [L, I] of each video, on the device of the towers. The iterable is read
            only as far as the batches need it.
        special: ids of the special tokens.
        length: F. The last window of a video may be shorter.
        stride: rows from the start of a window to the start of the next one.
        batch_size: number of windows in a batch. A batch may have windows of several videos.
    """
    for batch in batches(_cut_windows(videos, length, stride), batch_size):
        # Pad the windows to the longest one.
        clips = []
        for _, (start, end), features_LI in batch:
            clips.append(features_LI[start:end])
        vfeats_NFI = pad_sequence(clips, batch_first=True)
        device = vfeats_NFI.device
        lengths_N = torch.tensor([len(clip) for clip in clips], device=device)
        rows_F = torch.arange(vfeats_NFI.shape[1], device=device)
        vmasks_NF = rows_F < lengths_N[:, None]

        # Windows have no caption, only [CLS] and [SEP].
        caps_2 = torch.tensor([special.cls, special.sep], device=device)
        caps_N2 = caps_2.expand(len(clips), -1)
        cmasks_N2 = torch.ones_like(caps_N2, dtype=torch.bool)
        pooled_ND, states, _ = fusion.forward_video(
            vfeats_NFI, vmasks_NF, caps_N2, cmasks_N2
        )
        pooled_ND = upcast(pooled_ND)
        states = upcast(states)
        for row, (video, span, features_LI) in enumerate(batch):
            num_rows = len(clips[row])
            states_of_rows = states[row, 1 : 1 + num_rows]  # after [CLS]
            yield Window(
                video,
                span,
                share=num_rows / len(features_LI),
                pooled=pooled_ND[row],
                states=states_of_rows,
            )


def states_of_seconds(windows: Iterable[Window], fps: float) -> Tensor:
    """Returns the state of each second of a video, [S, D].

    It is the mean of the states of its rows. The state of a row is the mean of its states in the
    windows that contain it, after these have been divided by their L2 norms.

    Args:
        windows: the windows of one video.
        fps: feature rows per second of video.
    """
    states = []
    spans = []
    for window in windows:
        unit_states = normalize(window.states, dim=-1)
        states.append(unit_states.cpu().numpy())
        spans.append(window.span)
    rows_LD = average_windows(states, spans)
    return torch.from_numpy(average_seconds(rows_LD, fps))


def _cut_windows(
    videos: Iterable[Tensor], length: int, stride: int
) -> Iterator[tuple[int, Span, Tensor]]:
    """Yields the windows of each video: its position, the span, and the video's features."""
    for position, features_LI in enumerate(videos):
        for span in window_spans(len(features_LI), stride, length):
            yield position, span, features_LI


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` consecutive items. The last one may be shorter.

    Raises:
        DataError: `size` is not a whole number of at least 1.
    """
    if not isinstance(size, Integral) or size < 1:
        raise DataError(
            f"`batch_size` must be a whole number of at least 1, but is {size}."
        )
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
