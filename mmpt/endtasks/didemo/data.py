"""DiDeMo: the reader of its file, and the tensors of a video with a sentence.

Several people have judged which of the 21 moments of a video a sentence describes. A video has six
pieces of five seconds. A moment is a run of pieces, (first, last) inclusive, from 0.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, Field

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.processors import base, downstream
from mmpt.processors.aligner import video_name
from mmpt.processors.window_aligner import check_not_empty
from mmpt.utils.io import read_json
from mmpt.utils.validation import NotBlank, in_order, validate

NUM_PIECES = 6
Moment = tuple[int, int]
"""First and last piece, inclusive."""
NO_MOMENT: Moment = (-1, -1)
"""Fills up the lists of queries that fewer people have judged."""


_Piece = Annotated[int, Field(ge=0, lt=NUM_PIECES)]
_Moment = Annotated[tuple[_Piece, _Piece], AfterValidator(in_order)]


class Query(BaseModel):
    """A query of the file."""

    video: NotBlank
    """The video's name."""
    description: NotBlank
    times: Annotated[tuple[_Moment, ...], Field(min_length=1)]
    """The moments that people chose."""


def read_queries(path: str) -> list[Query]:
    """Returns the queries, in order. Warns of those that occur twice.

    Raises:
        DataError: another layout, an empty description, or moments outside the six pieces.
    """
    remedy = (
        'It must be DiDeMo\'s file, [{"video": ..., "description": ..., "times": [[first, last], '
        "...]}, ...], with pieces of 5 s from 0 to 5. Correct the file, or `dataset.test_path`."
    )
    kind = Annotated[list[Query], Field(min_length=1)]
    queries: list[Query] = validate(kind, read_json(path), path, remedy)
    names = [f"{query.video}: {query.description}" for query in queries]
    downstream.warn_of_equal_captions(path, names)
    return queries


class DiDeMoKey(NamedTuple):
    """A query's video, and the moments that people chose for it."""

    video_id: str
    times: tuple[Moment, ...]  # as many for every query, with NO_MOMENT at the end


@base.META_PROCESSORS.register
class DiDeMoMetaProcessor(base.MetaProcessor):
    """The descriptions of the file. The video key of a description is a `DiDeMoKey`.

    The file names videos with their endings, and some with different ones in different places
    (`x.mov`, `x.mp4`). Features may have any of these names (`x.mp4.npy`), or the name without an
    ending (`x.npy`), as `mmpt extract` writes it.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        queries = read_queries(self.list_path())
        reader = downstream.VideoProcessor(config, split)
        ids = feature_names([query.video for query in queries], reader)
        most = max(len(query.times) for query in queries)
        items = []
        for query in queries:
            num_absent = most - len(query.times)
            times = query.times + (NO_MOMENT,) * num_absent
            key = DiDeMoKey(ids[query.video], times)
            items.append((key, query.description))
        self.items = downstream.keep_with_features(
            items, lambda item: item[0].video_id, config, split
        )


def feature_names(
    names: Sequence[str], reader: downstream.VideoProcessor
) -> dict[str, str]:
    """Returns the id of each video's features.

    It is the video's name, the same name with another ending, or the name without an ending.
    """
    # Names with the same stem mean one video with different endings.
    stems = {name: name.rpartition(".")[0] or name for name in names}
    names_of: dict[str, list[str]] = defaultdict(list)
    for name, stem in stems.items():
        names_of[stem].append(name)
    found = {}
    for name, stem in stems.items():
        candidates = [name, *names_of[stem]]
        with_features = filter(reader.has, candidates)
        found[name] = next(with_features, stem)
    return found


@base.TEXT_PROCESSORS.register
class DiDeMoTextProcessor(downstream.TextProcessor):
    """A reader of descriptions as word-piece ids."""


@base.ALIGNERS.register
class DiDeMoAligner(downstream.DSAligner):
    """An aligner of the first F feature rows, a description and the moments that people chose."""

    def __call__(
        self,
        video_key: DiDeMoKey,
        video_feature: np.ndarray,
        text_feature: Any,
        rng: random.Random,
    ) -> Any:
        """Returns the tensors of `DSAligner`, the id of the video, and times int64 [A, 2]: first
        and last piece, -1 for none.

        Raises:
            DataError: features that are not finite [rows, width] floats, or no rows.
        """
        batch = super().__call__(video_key, video_feature, text_feature, rng)
        check_not_empty(video_feature, video_name(video_key))
        times = torch.tensor(video_key.times)
        return {**batch, "video_id": video_key.video_id, "times": times}
