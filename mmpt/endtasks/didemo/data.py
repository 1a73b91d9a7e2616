"""DiDeMo: which of the 21 moments of a half-minute video a sentence describes, judged by several
people.

A video has six pieces of five seconds; a moment is a run of pieces, (first, last) inclusive, from
0.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, Field

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
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
from mmpt.utils.validation import NotBlank, validate

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
    `mmpt extract` does, without (`x.npy`).
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        queries = read_queries(self.list_path())
        ids = feature_names([query.video for query in queries], VideoProcessor(config, split))
        most = max(len(query.times) for query in queries)
        items = []
        for query in queries:
            padding = (NO_MOMENT,) * (most - len(query.times))
            key = DiDeMoKey(ids[query.video], query.times + padding)
            items.append((key, query.description))
        self.items = keep_with_features(items, lambda item: item[0].video_id, config, split)


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

    times: torch.Tensor  # int64 [..., A, 2]: first and last piece, inclusive; -1 for none


def feature_names(names: Sequence[str], reader: VideoReader) -> dict[str, str]:
    """Returns the id of each video's features: its name, that with another ending, or without."""
    by_stem: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_stem.setdefault(stem_of(name), []).append(name)
    found = {}
    for stem, same in by_stem.items():
        for name in same:
            found[name] = next(filter(reader.has, [name, *same]), stem)
    return found


def stem_of(name: str) -> str:
    """Returns a file's name without its ending."""
    return name.rpartition(".")[0] or name


def _in_order(moment: Moment) -> Moment:
    if moment[0] > moment[1]:
        raise ValueError("be [first, last] with first <= last")
    return moment


_Piece = Annotated[int, Field(ge=0, lt=NUM_PIECES)]


class Query(BaseModel):
    """A query of the file."""

    video: NotBlank
    """The video's name."""
    description: NotBlank
    times: tuple[Annotated[tuple[_Piece, _Piece], AfterValidator(_in_order)], ...] = Field(
        min_length=1
    )
    """The moments that people chose."""


def read_queries(path: str) -> list[Query]:
    """Returns the queries, in order.

    Raises:
        DataError: another layout, an empty description, or moments outside the six pieces.
    """
    remedy = (
        'It must be DiDeMo\'s file, [{"video": ..., "description": ..., "times": [[first, last], '
        "...]}, ...], with pieces of 5 s from 0 to 5. Correct the file, or `dataset.test_path`."
    )
    kind = Annotated[list[Query], Field(min_length=1)]
    queries: list[Query] = validate(kind, read_json(path), path, remedy)
    repeated = len(queries) - len({(query.video, query.description) for query in queries})
    if repeated:
        what = "%s: %d of %d queries repeat another's video and description"
        logger.warning(what, path, repeated, len(queries))
    return queries
