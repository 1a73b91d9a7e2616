"""HTM-Align: the reader of its file, and the windows of a video with the sentences to compare.

A sentence of a narration is alignable if it is shown in the video. The file is {video id:
[[alignable 0 or 1, start, end, text], ...]}, times in seconds. The times of an alignable sentence
are annotated and say when it is shown. The times of the others say when they are spoken. Only the
latter decide which sentences a window is compared with, so no annotated time is used. Source:
Temporal Alignment Networks (arXiv 2204.02968), as released with Norton.

Legend: n sentences of a video, W windows, F video slots (feature rows), T text slots.
"""

import random
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig, InputPath
from mmpt.processors import base
from mmpt.processors.aligner import video_name
from mmpt.processors.downstream import TextProcessor, warn_of_equal_captions
from mmpt.processors.sampling import rows_between
from mmpt.processors.window_aligner import WindowAligner, num_seconds
from mmpt.utils.validation import NotBlank, Seconds, read_json_as

EDGE_WINDOWS = 4
"""Number of first windows that are compared with all earlier sentences, too, and of last windows
that are compared with all later ones.
"""


class Sentence(NamedTuple):
    """A sentence of a narration."""

    aligned: bool
    """True if it is shown from `start_s` to `end_s`. Otherwise it is spoken at that time."""
    start_s: Seconds
    end_s: Seconds
    text: NotBlank


Narration = tuple[list[list[int]], Sequence[Sentence]]
"""The word pieces of each sentence of a video, and the sentences."""
WindowComparison = tuple[int, int, int]
"""The start of a window (in seconds or feature rows), and the range of sentences (end exclusive)
that it is compared with."""


@base.META_PROCESSORS.register
class How2AlignMetaProcessor(base.MetaProcessor):
    """The videos in order of their ids. An item is a video's id and its sentences."""

    class Config(DatasetConfig):
        """The keys of the class."""

        anno_path: InputPath = None
        """`htm_align.json`."""

    config: Config

    def __init__(self, config: Config, split: Split):
        super().__init__(config, split)
        self.items = sorted(read_alignment(self.need_str("anno_path")).items())


@base.TEXT_PROCESSORS.register
class How2AlignTextProcessor(TextProcessor):
    """A reader of the sentences of a video as word-piece ids."""

    def __call__(self, key: Sequence[Sentence]) -> Narration:
        """Returns the tokenised sentences, with their times."""
        return [self.encode(sentence.text) for sentence in key], key


@base.ALIGNERS.register
class How2AlignAligner(WindowAligner):
    """An aligner that cuts a video into windows, each with the range of sentences to compare it
    with.
    """

    def __call__(
        self,
        video_key: str,
        video_feature: np.ndarray,
        text_feature: Narration,
        rng: random.Random,
    ) -> Any:
        """Returns one caption per sentence, and the windows that are compared with any. It draws
        nothing.

        caps and cmasks are [n, T], vfeats [W, F, width], vmasks [W, F], aligned bool [n],
        sentence_s float64 [n, 2] (start and end), windows int64 [W, 3]
        (`WindowComparison`s, in feature rows), video_len int64 [], the feature rows.

        Raises:
            DataError: features that are not finite [rows, width] floats, or no rows.
        """
        ids, sentences = text_feature
        fps = self.config.feature_fps
        length_s = num_seconds(len(video_feature), fps)
        # Windows are chosen in seconds, and cut from feature rows.
        chosen = comparisons(sentences, length_s, self.stride, self.width)
        windows = []
        for start_s, first, last in chosen:
            start, _ = rows_between(start_s, start_s, fps)
            windows.append((start, first, last))
        width = self.config.num_rows(self.width)
        spans = [(start, start + width) for start, _, _ in windows]
        name = video_name(video_key)
        batch, _ = self.build_item(
            video_key, video_feature, ids, name=name, spans=spans
        )
        times = [(sentence.start_s, sentence.end_s) for sentence in sentences]
        return {
            **batch,
            "aligned": torch.tensor([sentence.aligned for sentence in sentences]),
            "sentence_s": torch.tensor(times, dtype=torch.float64),
            "windows": torch.tensor(windows, dtype=torch.int64).reshape(-1, 3),
            "video_len": torch.tensor(len(video_feature)),
        }


def comparisons(
    sentences: Sequence[Sentence], num_seconds: int, stride: int = 8, width: int = 32
) -> list[WindowComparison]:
    """Returns the windows of a video and the sentences that each is compared with, as released.

    A window begins every `stride` seconds as long as more than half a window is left. It is
    compared with a range of sentences. To find the range, take the sentences that are not alignable
    and whose middle is at most `width` seconds before the start of the window and at most 2 `width`
    after it. The range goes from the first to the last of these sentences. Windows without such
    sentences are left out.
    """
    middles_n = np.array(
        [(sentence.start_s + sentence.end_s) / 2 for sentence in sentences]
    )
    spoken_n = np.array([not sentence.aligned for sentence in sentences])
    starts = range(0, num_seconds - width // 2, stride)
    windows = []
    for number, start in enumerate(starts):
        is_after_n = middles_n >= start - width
        is_before_n = middles_n <= start + 2 * width
        found = np.flatnonzero(spoken_n & is_after_n & is_before_n).tolist()
        if not found:
            continue
        first = found[0]
        last = found[-1] + 1
        # The first windows are compared with all earlier sentences, the last ones with all later.
        if number < EDGE_WINDOWS:
            first = 0
        elif number >= len(starts) - EDGE_WINDOWS:
            last = len(sentences)
        windows.append((start, first, last))
    return windows


_Sentences = Annotated[list[Sentence], Field(min_length=1)]
_File = Annotated[dict[str, _Sentences], Field(min_length=1)]


def read_alignment(path: str) -> dict[str, list[Sentence]]:
    """Returns the sentences of every video, in their order. Warns of equal ones in a video.

    Raises:
        DataError: another layout, an empty text, or impossible times.
    """
    remedy = (
        "It must be HTM-Align's file, {video id: [[alignable 0 or 1, start, end, text], ...]}. "
        "Correct it, or `dataset.anno_path`."
    )
    videos = read_json_as(path, _File, remedy)
    shown = []
    for video, sentences in videos.items():
        for sentence in sentences:
            if sentence.aligned:
                shown.append(f"{video}: {sentence.text}")
    warn_of_equal_captions(path, shown)
    return videos
