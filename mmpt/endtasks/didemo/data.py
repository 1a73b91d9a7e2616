"""DiDeMo: which of the 21 moments of a half-minute video a sentence describes, judged by several
people.

A video has six pieces of five seconds; a moment is a run of pieces, (first, last) inclusive, from
0.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors.aligner import video_name
from mmpt.processors.base import (
    ALIGNERS,
    META_PROCESSORS,
    TEXT_PROCESSORS,
    MetaProcessor,
    VideoReader,
)
from mmpt.processors.downstream import DSAligner, TextProcessor, VideoProcessor, keep_with_features
from mmpt.processors.window_aligner import check_not_empty
from mmpt.utils.io import read_json
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

NUM_PIECES = 6
Moment = tuple[int, int]
"""First and last piece, inclusive."""
NO_MOMENT: Moment = (-1, -1)
"""Fills the list of a query that fewer people have judged than another."""


class DiDeMoKey(NamedTuple):
    """A query's video, and the moments that people chose for it."""

    video_id: str
    times: tuple[Moment, ...]  # as many for every query, with NO_MOMENT at the end


@META_PROCESSORS.register
class DiDeMoMetaProcessor(MetaProcessor):
    """A description per item; the video key is a `DiDeMoKey`.

    The annotations name a video with its file's ending, and some with two (`x.mov` here, `x.mp4`
    there). Features may be named by any of these (`x.mp4.npy`) or, as
    `scripts/video_feature_extractor/extract.py` does, without (`x.npy`).
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        queries = read_queries(self.list_path())
        ids = feature_names([name for name, _, _ in queries], VideoProcessor(config, split))
        most = max(len(times) for _, _, times in queries)
        items = [
            (DiDeMoKey(ids[name], (*times, *[NO_MOMENT] * (most - len(times)))), description)
            for name, description, times in queries
        ]
        self.items = keep_with_features(items, lambda item: item[0].video_id, config, split)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[DiDeMoKey, str]:
        return self.items[index]


@TEXT_PROCESSORS.register
class DiDeMoTextProcessor(TextProcessor):
    """Word-piece ids of a description."""


@ALIGNERS.register
class DiDeMoAligner(DSAligner):
    """The first F seconds, the description, and the moments that people chose."""

    def __call__(
        self, video_key: DiDeMoKey, video_feature: np.ndarray, text_feature: Any, rng: random.Random
    ) -> ClipBatch:
        """Returns as `DSAligner`, with the video's id alone and times int64 [A, 2].

        Raises:
            DataError: features that are not finite [seconds, 512] floats, or no seconds.
        """
        batch = super().__call__(video_key, video_feature, text_feature, rng)
        check_not_empty(video_feature, video_name(video_key))
        batch["video_id"] = video_key.video_id
        return DiDeMoBatch(**batch, times=torch.tensor(video_key.times))


class DiDeMoBatch(ClipBatch, total=False):
    """A batch of queries."""

    times: (
        torch.Tensor
    )  # int64 [..., A, 2]: first and last piece, inclusive; -1 where there is no annotation


def feature_names(names: Sequence[str], reader: VideoReader) -> dict[str, str]:
    """Returns under which id the features of each video are: its name, that with another ending, or
    that without.
    """
    by_stem: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_stem.setdefault(stem_of(name), []).append(name)
    return {
        name: next(filter(reader.has, [name, *by_stem[stem_of(name)]]), stem_of(name))
        for same in by_stem.values()
        for name in same
    }


def stem_of(name: str) -> str:
    """Returns a file's name without its ending."""
    return name.rpartition(".")[0] or name


def read_queries(path: str) -> list[tuple[str, str, tuple[Moment, ...]]]:
    """Returns video name, description and chosen moments of every query, in order.

    Raises:
        DataError: another layout, an empty description, or moments outside the six pieces.
    """
    value = read_json(path)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(entry, dict) for entry in value)
    ):
        raise DataError(
            f'{path}: must be [{{"video": ..., "description": ..., "times": [[first, last], ...]}}, ...], but is '
            "something else. Correct `dataset.test_path`."
        )
    queries = [_read_query(path, number, entry) for number, entry in enumerate(value)]
    repeated = len(queries) - len({(name, description) for name, description, _ in queries})
    if repeated:
        logger.warning(
            "%s: %d of %d queries repeat another's video and description",
            path,
            repeated,
            len(queries),
        )
    return queries


def _read_query(
    path: str, number: int, entry: dict[str, Any]
) -> tuple[str, str, tuple[Moment, ...]]:
    name, description, times = entry.get("video"), entry.get("description"), entry.get("times")
    for key, text in (("video", name), ("description", description)):
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"{path}: `{key}` of query {number} (from 0) must be a text that is not empty, but is {text!r:.80}. "
                "Correct the file or remove the query."
            )
    if not isinstance(times, list) or not times or not all(_is_moment(moment) for moment in times):
        raise DataError(
            f"{path}: `times` of query {number} (from 0) must be a list of [first, last] with 0 <= first <= last <= "
            f"{NUM_PIECES - 1} (pieces of 5 s), but is {times!r:.80}. Correct the file or remove the query."
        )
    return str(name), str(description), tuple((first, last) for first, last in times)


def _is_moment(value: Any) -> bool:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or any(type(piece) is not int for piece in value)
    ):
        return False
    return 0 <= value[0] <= value[1] < NUM_PIECES
