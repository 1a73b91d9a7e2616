"""HTM-Align: which sentences of a narration are in the picture, and when; a video is read in
overlapping windows.

The file is {video id: [[alignable 0 or 1, start, end, text], ...]}, times in seconds: where an
alignable sentence is seen, and where any other is said. Which sentences a window is compared with
is found from the latter alone, so that no annotated time is used. Source: Temporal Alignment
Networks (arXiv 2204.02968), as released with Norton.

Legend: n sentences of a video, W windows, F video slots (seconds), T text slots.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors.aligner import video_name
from mmpt.processors.base import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, MetaProcessor
from mmpt.processors.downstream import TextProcessor
from mmpt.processors.tensorise import VideoSlots, check_feature, check_finite
from mmpt.processors.window_aligner import WindowAligner, check_not_empty
from mmpt.utils.log import get_logger
from mmpt.utils.validation import NotBlank, Seconds, read_json_as

logger = get_logger(__name__)

EDGE_STEPS = 4
"""So many first windows are compared with every earlier sentence, and so many last ones with every
later one.
"""


class Sentence(NamedTuple):
    """A sentence of a narration."""

    aligned: bool
    """Seen in the video from `start_s` to `end_s`; otherwise these say when it is said."""
    start_s: Seconds
    end_s: Seconds
    text: NotBlank


class Narration(NamedTuple):
    """The sentences of a video, tokenised."""

    ids: list[list[int]]  # word pieces of each
    sentences: Sequence[Sentence]


class Step(NamedTuple):
    """A window that begins at `start` (seconds), to be compared with sentences `first` to `last`,
    exclusive.
    """

    start: int
    first: int
    last: int


class AlignBatch(ClipBatch, total=False):
    """A video of HTM-Align; caps and cmasks are [n, T], vfeats [W, F, 512] and vmasks [W, F]."""

    aligned: torch.Tensor  # bool [n]
    sentence_s: torch.Tensor  # float64 [n, 2]: start and end
    windows: torch.Tensor  # int64 [W, 3]: `Step`s
    video_len: torch.Tensor  # int64 []: seconds


@META_PROCESSORS.register
class How2AlignMetaProcessor(MetaProcessor):
    """One video per item, in order of their ids: the id and its sentences."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.items = sorted(read_alignment(self.need_str("anno_path")).items())


@TEXT_PROCESSORS.register
class How2AlignTextProcessor(TextProcessor):
    """Word pieces of every sentence of a video."""

    def __call__(self, key: Sequence[Sentence]) -> Narration:
        """Returns the tokenised sentences, with their times."""
        return Narration([self.encode(sentence.text) for sentence in key], key)


@ALIGNERS.register
class How2AlignAligner(WindowAligner):
    """Windows of `sliding_window_size` seconds every `sliding_window`, each with its range of
    sentences.
    """

    def __call__(
        self, video_key: str, video_feature: np.ndarray, text_feature: Narration, rng: random.Random
    ) -> AlignBatch:
        """Returns one caption per sentence and those windows that are compared with any; nothing is
        drawn.

        Raises:
            DataError: features that are not finite [seconds, width] floats, or no seconds.
        """
        name = video_name(video_key)
        check_feature(video_feature, name)
        check_not_empty(video_feature, name)
        steps = comparisons(text_feature.sentences, len(video_feature), self.stride, self.width)
        video = VideoSlots(
            len(steps), self.max_video_len, video_feature.shape[1], video_feature.dtype
        )
        for row, step in enumerate(steps):
            video.write(row, video_feature[step.start : step.start + self.width])
        check_finite(video.vfeats_BFE, name)
        caps, cmasks = self.build_texts(text_feature.ids, name=name)
        vfeats, vmasks = video.tensors()
        times = [(sentence.start_s, sentence.end_s) for sentence in text_feature.sentences]
        return AlignBatch(
            caps=caps,
            cmasks=cmasks,
            vfeats=vfeats,
            vmasks=vmasks,
            video_id=video_key,
            aligned=torch.tensor([sentence.aligned for sentence in text_feature.sentences]),
            sentence_s=torch.tensor(times, dtype=torch.float64),
            windows=torch.tensor(steps, dtype=torch.int64).reshape(-1, 3),
            video_len=torch.tensor(len(video_feature)),
        )


def comparisons(
    sentences: Sequence[Sentence], num_seconds: int, stride: int = 8, width: int = 32
) -> list[Step]:
    """Returns which windows of a video are compared with which of its sentences, by the rule of the
    release.

    A window begins every `stride` seconds while more than half of one is left. It is compared with
    the sentences from the first to the last of those that are not alignable and said (by their
    middle) from `width` seconds before its begin to 2 `width` after; windows without any are left
    out.
    """
    middles_n = np.array([(sentence.start_s + sentence.end_s) / 2 for sentence in sentences])
    said_n = np.array([not sentence.aligned for sentence in sentences])
    starts = range(0, num_seconds - width // 2, stride)
    steps = []
    for number, start in enumerate(starts):
        near = np.flatnonzero(
            said_n & (middles_n >= start - width) & (middles_n <= start + 2 * width)
        )
        if not len(near):
            continue
        first, last = int(near[0]), int(near[-1]) + 1
        if number < EDGE_STEPS:
            first = 0
        elif number >= len(starts) - EDGE_STEPS:
            last = len(sentences)
        steps.append(Step(start, first, last))
    return steps


def read_alignment(path: str) -> dict[str, list[Sentence]]:
    """Returns the sentences of every video, in their order.

    Raises:
        DataError: another layout, an empty text, impossible times, or sentences of one kind only.
    """
    remedy = (
        "It must be HTM-Align's file, {video id: [[alignable 0 or 1, start, end, text], ...]}. "
        "Correct it, or `dataset.anno_path`."
    )
    videos = read_json_as(path, _File, remedy)
    sentences = [sentence for rows in videos.values() for sentence in rows]
    num_aligned = sum(sentence.aligned for sentence in sentences)
    if num_aligned in (0, len(sentences)):
        raise DataError(
            f"{path}: must hold sentences that are alignable and others, but {num_aligned} of "
            f"{len(sentences)} are alignable. Correct `dataset.anno_path`."
        )
    shown = []
    for video, rows in videos.items():
        shown += [(video, sentence.text) for sentence in rows if sentence.aligned]
    if repeated := len(shown) - len(set(shown)):
        what = "%s: %d of %d alignable sentences repeat another of their video"
        logger.warning(what, path, repeated, len(shown))
    if reversed_times := sum(sentence.end_s < sentence.start_s for sentence in sentences):
        what = "%s: %d of %d sentences end before they start"
        logger.warning(what, path, reversed_times, len(sentences))
    return videos


_File = Annotated[dict[str, Annotated[list[Sentence], Field(min_length=1)]], Field(min_length=1)]
