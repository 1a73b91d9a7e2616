"""YouCook2: clips with a caption each, or whole videos with all their captions.

`dataset.test_path` (`train_path`, `val_path`) is the released pickle of records {"id":
"<video>_<k>", "caption": text}, the same list as JSON, or a CSV with the columns video_id, start,
end (seconds) and text. Records need the times, and with `use_annotation_text` the words, of entry k
(from 0) of `dataset.trainval_annotation`; a CSV needs nothing else.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, Field

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig, Switch
from mmpt.errors import ConfigError, DataError
from mmpt.processors import base, downstream
from mmpt.processors.aligner import video_name
from mmpt.processors.sampling import rows_between
from mmpt.processors.window_aligner import WindowAligner
from mmpt.utils.io import load_plain_pickle, read_json
from mmpt.utils.log import get_logger
from mmpt.utils.validation import NotBlank, Row, read_json_as, read_table, validate

logger = get_logger(__name__)

ClipKey = tuple[str, int, int]
"""Video id, start and end (exclusive) in seconds."""


class YoucookConfig(DatasetConfig):
    """The keys of YouCook2."""

    trainval_annotation: str | None = None
    """`youcookii_annotations_trainval.json`. Not read if the clips come from a CSV."""
    use_annotation_text: Switch | None = None
    """Take the sentence from the annotation. Default: from the list of clips."""


class YoucookClip(NamedTuple):
    """A captioned stretch of a video."""

    video_id: str
    start_s: int
    end_s: int  # exclusive
    text: str


@base.META_PROCESSORS.register
class YoucookMetaProcessor(base.MetaProcessor):
    """The clips in the file's order. A clip's key is (video, start, end), and its text key is the
    caption.
    """

    Config = YoucookConfig

    def __init__(self, config: YoucookConfig, split: Split):
        super().__init__(config, split)
        clips = read_clips(self.list_path(), config, split)
        reader = downstream.VideoProcessor(config, split)
        length_s: dict[str, float] = {}  # of the videos that have features
        for clip in clips:
            video = clip.video_id
            if video not in length_s and reader.has(video):
                length_s[video] = len(reader(video)) / config.feature_fps
        # One warning counts the clips that end after their video's features.
        self.items = []
        cut = []
        for clip in clips:
            key = clip.video_id, clip.start_s, clip.end_s
            self.items.append((key, clip.text))
            if clip.end_s > length_s.get(clip.video_id, clip.end_s):
                cut.append(clip.video_id)
        if cut:
            logger.warning(
                "%s: %d of %d clips end after their video's features (first: %s). They are cut "
                "there.",
                config.vfeat_dir,
                len(cut),
                len(clips),
                cut[0],
            )


@base.VIDEO_PROCESSORS.register
class YoucookVideoProcessor(downstream.VideoProcessor):
    """A reader of the features of a clip from its video's `<vfeat_dir>/<id>.npy`."""

    def __call__(self, key: ClipKey) -> np.ndarray:
        """Returns float [rows, width].

        If the features end within the clip, there are fewer rows; if they end before it, none.
        """
        video_id, start_s, end_s = key
        start, end = rows_between(start_s, end_s, self.config.feature_fps)
        return super().__call__(video_id)[start:end]


@base.META_PROCESSORS.register
class YoucookFullVideoBGMetaProcessor(base.MetaProcessor):
    """The videos by first appearance. Their text keys are lists of captions in time order."""

    Config = YoucookConfig

    def __init__(self, config: YoucookConfig, split: Split):
        super().__init__(config, split)
        clips = read_clips(self.list_path(), config, split)
        by_video: dict[str, list[YoucookClip]] = {}
        for clip in clips:
            listed = by_video.setdefault(clip.video_id, [])
            listed.append(clip)
        self.items = []
        for video, listed in by_video.items():
            # `sorted` is stable: equal starts stay in the order of the file.
            in_time = sorted(listed, key=lambda clip: clip.start_s)
            self.items.append((video, [clip.text for clip in in_time]))


@base.VIDEO_PROCESSORS.register
class YoucookFullVideoBGProcessor(downstream.VideoProcessor):
    """A reader of all seconds of a video, with and without a caption."""


@base.TEXT_PROCESSORS.register
class YoucookFullVideoBGTextProcessor(downstream.TextProcessor):
    """A reader of the captions of a video as word-piece ids."""

    def __call__(self, key: Sequence[str]) -> list[list[int]]:
        """Returns a list of ids per caption."""
        return [self.encode(text) for text in key]


@base.ALIGNERS.register
class YoucookFullVideoBGAligner(WindowAligner):
    """An aligner of all captions of a video with windows of all its seconds."""

    def __call__(
        self,
        video_key: str,
        video_feature: np.ndarray,
        text_feature: Any,
        rng: random.Random,
    ) -> Any:
        """Returns caps and cmasks [S, T] of S captions, vfeats [W, F, width] and vmasks [W, F] of W
        windows, and video_len in feature rows. It draws nothing.
        """
        name = video_name(video_key)
        batch, _ = self.build_item(video_key, video_feature, text_feature, name=name)
        return {**batch, "video_len": len(video_feature)}


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


class _Entry(BaseModel):
    segment: _Segment
    sentence: str | None = None


class _Video(BaseModel):
    annotations: list[Any] | None = None


class _Annotation(BaseModel):
    database: Annotated[dict[str, _Video], Field(min_length=1)]


def read_clips(path: str, config: YoucookConfig, split: Split) -> list[YoucookClip]:
    """Returns the clips of an annotation file in its order.

    In training and validation, clips without features are left out. A test video that has neither
    features nor times is kept, with the times 0 to 0, because scoring names and counts it.

    Raises:
        ConfigError: records without `dataset.trainval_annotation`.
        DataError: another data set's file, damaged or repeated entries, empty captions, impossible
            times, or too many videos without features.
    """
    if Path(path).suffix.lower() == ".csv":
        clips = _clips_of_table(path)
        names = [
            f"{video_id} {start} {end} {text!r}" for video_id, start, end, text in clips
        ]
    else:
        records = _read_records(path)
        names = [record.id for record in records]
        clips = _clips_of_records(
            path, records, config, downstream.VideoProcessor(config, split)
        )
    downstream.check_listed_once(path, "clip", names)
    clips = downstream.keep_with_features(
        clips, lambda clip: clip.video_id, config, split
    )
    downstream.warn_of_equal_captions(path, (clip.text for clip in clips if clip.text))
    return clips


def _clips_of_table(path: str) -> list[YoucookClip]:
    """Returns the clips of a CSV."""
    clips = []
    for row in read_table(path, _ClipRow):
        where = f"{path}, line {row.line}"
        span = row.start, row.end
        start_s, end_s = validate(_Segment, span, where, "Correct or remove the row.")
        clips.append(YoucookClip(row.video_id, start_s, end_s, row.text))
    return clips


def _read_records(path: str) -> list[_Record]:
    """Returns the records of a JSON file or a pickle."""
    is_json = Path(path).suffix.lower() == ".json"
    value = read_json(path) if is_json else load_plain_pickle(path)
    remedy = (
        'It must be a list of records {"id": "<video>_<number>", "caption": text}. This may be '
        "another data set's file: correct its path under `dataset`."
    )
    kind = Annotated[list[_Record], Field(min_length=1)]
    records: list[_Record] = validate(kind, value, path, remedy)
    return records


def _clips_of_records(
    path: str,
    records: list[_Record],
    config: YoucookConfig,
    reader: downstream.VideoProcessor,
) -> list[YoucookClip]:
    """Returns the clips of the records, with times and words from the annotation."""
    annotation = config.trainval_annotation
    if not annotation:
        problem = (
            f"`dataset.trainval_annotation` must be set, since {path} has no times, but "
            "is not."
        )
        raise ConfigError("dataset", [problem])
    remedy = (
        'It must be YouCook2\'s file, {"database": {video id: {"annotations": [{"segment": [start, '
        'end], "sentence": text}, ...]}}}. Correct `dataset.trainval_annotation`.'
    )
    database = read_json_as(annotation, _Annotation, remedy).database
    clips = []
    for record in records:
        # An id is that of the video and the number of its entry in the annotation.
        video_id, _, number = record.id.rpartition("_")
        entries = database.get(video_id, _Video()).annotations or []
        if int(number) < len(entries):
            place = f"{annotation}: video {video_id}, entry {number}"
            entry: _Entry = validate(
                _Entry, entries[int(number)], place, "Download it again."
            )
            key, text = "caption", record.caption
            if config.use_annotation_text:
                key, text = "sentence", entry.sentence
            where = f"{path}: record {record.id}: `{key}`"
            text = validate(NotBlank, text, where, "Correct or remove the record.")
            clips.append(YoucookClip(video_id, *entry.segment, text))
        elif not reader.has(video_id):
            # No times are needed: the clip is left out or reported, as it has no features.
            clips.append(YoucookClip(video_id, 0, 0, ""))
        else:
            raise DataError(
                f"{path}: record {record.id}: {annotation} must have entry {number} (from 0) of "
                f"its video, but has {len(entries)} entries. Take both files from one source."
            )
    return clips
