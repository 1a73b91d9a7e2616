"""YouCook2: a clip per caption, or a whole video and all its captions; annotations as released or
as a CSV.

`dataset.test_path` (`train_path`, `val_path`) is the released pickle of records {"id":
"<video>_<k>", "caption": text}, the same list as JSON, or a CSV with the columns video_id, start,
end (seconds) and text. Records need the times, and with `use_annotation_text` the words, of entry k
(from 0) of `dataset.trainval_annotation`; a CSV needs nothing else.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, Field

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import ConfigError, DataError
from mmpt.processors.aligner import video_name
from mmpt.processors.base import (
    ALIGNERS,
    META_PROCESSORS,
    TEXT_PROCESSORS,
    VIDEO_PROCESSORS,
    MetaProcessor,
)
from mmpt.processors.downstream import (
    MOST_NAMED,
    TextProcessor,
    VideoProcessor,
    keep_with_features,
    warn_of_equal_captions,
)
from mmpt.processors.window_aligner import WindowAligner
from mmpt.utils.io import load_npy, load_plain_pickle, read_json
from mmpt.utils.log import get_logger
from mmpt.utils.validation import NotBlank, Row, read_json_as, read_table, validate

logger = get_logger(__name__)

ClipKey = tuple[str, int, int]
"""Video id, start and end (exclusive) in seconds."""


class YoucookClip(NamedTuple):
    """A captioned stretch of a video."""

    video_id: str
    start_s: int
    end_s: int  # exclusive
    text: str


class YoucookBatch(ClipBatch, total=False):
    """An item of whole videos: caps [S, T] of S captions, vfeats [W, F, 512] of W windows."""

    video_len: int  # seconds


@META_PROCESSORS.register
class YoucookMetaProcessor(MetaProcessor):
    """One clip per item, in the file's order: the key is (video, start, end), the text key is the
    caption.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        clips = read_clips(self.list_path(), config, split)
        _warn_of_short_features(clips, VideoProcessor(config, split))
        self.items = [((clip.video_id, clip.start_s, clip.end_s), clip.text) for clip in clips]


@VIDEO_PROCESSORS.register
class YoucookVideoProcessor(VideoProcessor):
    """The seconds of a clip, cut from its video's `<vfeat_dir>/<id>.npy`."""

    def __call__(self, key: ClipKey) -> np.ndarray:
        """Returns float [seconds, 512]; fewer than the clip's, or none, where the features end
        before it.
        """
        video_id, start_s, end_s = key
        return super().__call__(video_id)[start_s:end_s]


@META_PROCESSORS.register
class YoucookFullVideoBGMetaProcessor(MetaProcessor):
    """One video per item, videos by first appearance: the text key is the list of its captions in
    time order.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        clips = read_clips(self.list_path(), config, split)
        by_video: dict[str, list[YoucookClip]] = {}
        for clip in clips:
            by_video.setdefault(clip.video_id, []).append(clip)
        in_time = {
            video: sorted(listed, key=lambda clip: clip.start_s)
            for video, listed in by_video.items()
        }
        if [clip for listed in in_time.values() for clip in listed] != clips:
            logger.warning(
                "%s: clips are not listed video by video in time order; regrouped", self.list_path()
            )
        self.items = [(video, [clip.text for clip in listed]) for video, listed in in_time.items()]


@VIDEO_PROCESSORS.register
class YoucookFullVideoBGProcessor(VideoProcessor):
    """All seconds of a video, whether or not a caption speaks of them."""


@TEXT_PROCESSORS.register
class YoucookFullVideoBGTextProcessor(TextProcessor):
    """Word-piece ids of every caption of a video."""

    def __call__(self, key: Sequence[str]) -> list[list[int]]:
        """Returns a list of ids per caption."""
        return [self.encode(text) for text in key]


@ALIGNERS.register
class YoucookFullVideoBGAligner(WindowAligner):
    """All captions of a video, and windows of all its seconds."""

    def __call__(
        self,
        video_key: str,
        video_feature: np.ndarray,
        text_feature: list[list[int]],
        rng: random.Random,
    ) -> YoucookBatch:
        """Returns caps and cmasks [S, T], vfeats [W, F, 512], vmasks [W, F]; nothing is drawn."""
        name = video_name(video_key)
        batch, _ = self.build_item(video_key, video_feature, text_feature, name=name)
        return YoucookBatch(**batch, video_len=len(video_feature))


def read_clips(path: str, config: DatasetConfig, split: Split) -> list[YoucookClip]:
    """Returns the clips of an annotation file in its order; of training and validation those that
    have features.

    A test video that has neither features nor times is kept, with the times 0 to 0: scoring names
    and counts it.

    Raises:
        ConfigError: records without `dataset.trainval_annotation`.
        DataError: another data set's file, damaged or repeated entries, empty captions, impossible
            times, or too many videos without features.
    """
    if Path(path).suffix.lower() == ".csv":
        clips = []
        for row in read_table(path, _ClipRow):
            where, remedy = f"{path}, line {row.line}", "Correct or remove the row."
            start_s, end_s = validate(_Segment, (row.start, row.end), where, remedy)
            clips.append(YoucookClip(row.video_id, start_s, end_s, row.text))
        names = [f"{clip.video_id} {clip.start_s} {clip.end_s} {clip.text!r}" for clip in clips]
    else:
        records = _read_records(path)
        names = [record.id for record in records]
        clips = _clips_of_records(path, records, config, VideoProcessor(config, split))
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{path}: each clip must be listed once, but {len(repeated)} are listed again (first: "
            f"{repeated[0]}). Keep one of each."
        )
    clips = keep_with_features(clips, lambda clip: clip.video_id, config, split)
    warn_of_equal_captions(path, (clip.text for clip in clips if clip.text))
    return clips


def _not_empty(segment: tuple[int, int]) -> tuple[int, int]:
    if segment[0] >= segment[1]:
        raise ValueError("be [start, end] in whole seconds with start < end")
    return segment


_Second = Annotated[int, Field(ge=0)]
_Segment = Annotated[tuple[_Second, _Second], AfterValidator(_not_empty)]


class _ClipRow(Row):
    video_id: NotBlank
    start: _Second
    end: _Second
    text: NotBlank


class _Record(BaseModel):
    id: Annotated[str, Field(pattern=r"^.+_[0-9]+$")]
    caption: str | None = None

    @property
    def video_id(self) -> str:
        return self.id.rpartition("_")[0]

    @property
    def number(self) -> int:
        return int(self.id.rpartition("_")[2])


class _Entry(BaseModel):
    segment: _Segment
    sentence: str | None = None


class _Video(BaseModel):
    annotations: list[Any] | None = None


class _Annotation(BaseModel):
    database: Annotated[dict[str, _Video], Field(min_length=1)]


def _read_records(path: str) -> list[_Record]:
    value = read_json(path) if Path(path).suffix.lower() == ".json" else load_plain_pickle(path)
    remedy = (
        'It must be a list of records {"id": "<video>_<number>", "caption": text}. This may be '
        "another data set's file: correct its path under `dataset`."
    )
    records: list[_Record] = validate(
        Annotated[list[_Record], Field(min_length=1)], value, path, remedy
    )
    return records


def _clips_of_records(
    path: str, records: list[_Record], config: DatasetConfig, reader: VideoProcessor
) -> list[YoucookClip]:
    """Looks the records up in the annotation."""
    if not config.trainval_annotation:
        problem = (
            f"`dataset.trainval_annotation` must be set, since {path} has no times, but is not."
        )
        raise ConfigError("dataset", [problem])
    remedy = (
        'It must be YouCook2\'s file, {"database": {video id: {"annotations": [{"segment": [start, '
        'end], "sentence": text}, ...]}}}. Correct `dataset.trainval_annotation`.'
    )
    database = read_json_as(config.trainval_annotation, _Annotation, remedy).database
    annotated = {video: found.annotations for video, found in database.items() if found.annotations}
    clips = []
    for record in records:
        if record.video_id in annotated:
            clips.append(_annotated_clip(path, record, annotated[record.video_id], config))
        elif not reader.has(record.video_id):
            clips.append(YoucookClip(record.video_id, 0, 0, ""))
        else:
            raise DataError(
                f"{path}: record {record.id}: {config.trainval_annotation} must have its video, "
                "but has not. Take both files from one source."
            )
    if not any(clip.text for clip in clips):
        raise DataError(
            f"{config.trainval_annotation}: must have the videos of {path}, but has none of them. "
            "This may be another data set's file: correct `dataset.trainval_annotation`."
        )
    return clips


def _annotated_clip(
    path: str, record: _Record, entries: list[Any], config: DatasetConfig
) -> YoucookClip:
    where = f"{path}: record {record.id}"
    if record.number >= len(entries):
        raise DataError(
            f"{where}: its number must be below the {len(entries)} entries that "
            f"{config.trainval_annotation} has for the video, since it counts them from 0. Take "
            "both files from one source."
        )
    place = f"{config.trainval_annotation}: video {record.video_id}, entry {record.number}"
    entry: _Entry = validate(_Entry, entries[record.number], place, "Download it again.")
    text, source = record.caption, "`caption`"
    if config.use_annotation_text:
        text, source = entry.sentence, f"`sentence` in {config.trainval_annotation}"
    if not text or not text.strip():
        raise DataError(
            f"{where}: {source} must be a text, but is {text!r:.100}. Correct or remove the record."
        )
    return YoucookClip(record.video_id, *entry.segment, text)


def _warn_of_short_features(clips: list[YoucookClip], reader: VideoProcessor) -> None:
    """Counts the clips that reach beyond their video's features, or lie beyond them, in one
    warning.
    """
    num_seconds = {
        video: _count_seconds(reader.path(video)) for video in {clip.video_id for clip in clips}
    }
    cut = [clip for clip in clips if clip.end_s > num_seconds[clip.video_id]]
    if cut:
        empty = [clip for clip in cut if clip.start_s >= num_seconds[clip.video_id]]
        videos = list(dict.fromkeys(clip.video_id for clip in cut))
        listed = ", ".join(videos[:MOST_NAMED]) + (", ..." if len(videos) > MOST_NAMED else "")
        what = (
            "%s: %d of %d clips end after their video's features (%d videos: %s) and are cut "
            "there; %d of these begin after them too, and are scored without a second of video"
        )
        counts = (len(cut), len(clips), len(videos), listed, len(empty))
        logger.warning(what, reader.config.vfeat_dir, *counts)


def _count_seconds(path: Path) -> float:
    """Returns the number of rows; infinity for a damaged file, which reading reports by name."""
    try:
        return len(load_npy(path, "", mmap_mode="r"))
    except (DataError, TypeError):
        return float("inf")
