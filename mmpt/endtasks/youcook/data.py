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
from typing import Any, NamedTuple

import numpy as np

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
from mmpt.endtasks.tables import Row, read_table
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
from mmpt.utils.io import NPY_ERRORS, load_plain_pickle, read_json
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

ClipKey = tuple[str, int, int]
"""Video id, start and end (exclusive) in seconds."""
_CSV_COLUMNS = ("video_id", "start", "end", "text")


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
        self.clips = read_clips(self.list_path(), config, split)
        _warn_of_short_features(self.clips, VideoProcessor(config, split))

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[ClipKey, str]:
        clip = self.clips[index]
        return (clip.video_id, clip.start_s, clip.end_s), clip.text


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

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[str, list[str]]:
        return self.items[index]


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
    """All captions of a video beside windows of all its seconds."""

    def __call__(
        self,
        video_key: str,
        video_feature: np.ndarray,
        text_feature: list[list[int]],
        rng: random.Random,
    ) -> YoucookBatch:
        """Returns caps and cmasks [S, T], vfeats [W, F, 512], vmasks [W, F]; nothing is drawn."""
        name = video_name(video_key)
        vfeats, vmasks, _ = self.build_windows(video_feature, name=name)
        caps, cmasks = self.build_texts(text_feature, name=name)
        return YoucookBatch(
            caps=caps,
            cmasks=cmasks,
            vfeats=vfeats,
            vmasks=vmasks,
            video_id=video_key,
            video_len=len(video_feature),
        )


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
        clips = [_clip_of_row(path, row) for row in read_table(path, _CSV_COLUMNS)]
        names = [f"{clip.video_id} {clip.start_s} {clip.end_s} {clip.text!r}" for clip in clips]
    else:
        records = _read_records(path)
        names = [record["id"] for record in records]
        clips = _clips_of_records(path, records, config, VideoProcessor(config, split))
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{path}: each clip must be listed once, but {len(repeated)} are listed again (first: {repeated[0]}). Keep "
            "one of each."
        )
    clips = keep_with_features(clips, lambda clip: clip.video_id, config, split)
    warn_of_equal_captions(path, (clip.text for clip in clips if clip.text))
    return clips


def _clip_of_row(path: str, row: Row) -> YoucookClip:
    video_id, start, end, text = (row.values[name] for name in _CSV_COLUMNS)
    where = f"{path}, line {row.line}"
    try:
        start_s, end_s = float(start), float(end)
    except ValueError:
        raise DataError(
            f"{where}: `start` and `end` must be seconds, but are {start!r} and {end!r}."
        ) from None
    return YoucookClip(video_id, *_whole_seconds(start_s, end_s, where), text)


def _read_records(path: str) -> list[dict[str, Any]]:
    records = read_json(path) if Path(path).suffix.lower() == ".json" else load_plain_pickle(path)
    if not isinstance(records, list) or not records or not all(map(_is_record, records)):
        raise DataError(
            f'{path}: must be a list of records {{"id": "<video>_<number>", "caption": text}}, but is something else. '
            "This may be another data set's file: correct its path under `dataset`."
        )
    return records


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        return False
    video_id, _, number = record["id"].rpartition("_")
    return bool(video_id) and number.isascii() and number.isdigit()


def _clips_of_records(
    path: str, records: list[dict[str, Any]], config: DatasetConfig, reader: VideoProcessor
) -> list[YoucookClip]:
    """Looks the records up in the annotation."""
    if not config.trainval_annotation:
        problem = (
            f"`dataset.trainval_annotation` must be set, since {path} has no times, but is not."
        )
        raise ConfigError("dataset", [problem])
    database = _read_annotation(config.trainval_annotation)
    clips = []
    for record in records:
        video_id = record["id"].rpartition("_")[0]
        if video_id in database:
            clips.append(_annotated_clip(path, record, database[video_id], config))
        elif not reader.has(video_id):
            clips.append(YoucookClip(video_id, 0, 0, ""))
        else:
            raise DataError(
                f"{path}: record {record['id']}: {config.trainval_annotation} must have its video, but has not. Take "
                "both files from one source."
            )
    if not any(clip.text for clip in clips):
        raise DataError(
            f"{config.trainval_annotation}: must have the videos of {path}, but has none of them. This may be another "
            "data set's file: correct `dataset.trainval_annotation`."
        )
    return clips


def _read_annotation(path: str) -> dict[str, list[Any]]:
    """Returns the annotation entries of every video that has some."""
    value = read_json(path)
    database = value.get("database") if isinstance(value, dict) else None
    if isinstance(database, dict) and all(isinstance(video, dict) for video in database.values()):
        found = {
            video_id: video["annotations"]
            for video_id, video in database.items()
            if "annotations" in video
        }
        if found and all(isinstance(entries, list) for entries in found.values()):
            return found
    raise DataError(
        f'{path}: must be YouCook2\'s file, {{"database": {{video id: {{"annotations": [...]}}}}}}, but is something '
        "else. Correct `dataset.trainval_annotation`."
    )


def _annotated_clip(
    path: str, record: dict[str, Any], entries: list[Any], config: DatasetConfig
) -> YoucookClip:
    video_id, _, number = record["id"].rpartition("_")
    where = f"{path}: record {record['id']}"
    if int(number) >= len(entries):
        raise DataError(
            f"{where}: its number must be below the {len(entries)} entries that {config.trainval_annotation} has for "
            "the video, since it counts them from 0. Take both files from one source."
        )
    entry = entries[int(number)]
    segment = entry.get("segment") if isinstance(entry, dict) else None
    if (
        not isinstance(segment, list)
        or len(segment) != 2
        or not all(type(time) in (int, float) for time in segment)
    ):
        raise DataError(
            f"{config.trainval_annotation}: video {video_id}, entry {number}: `segment` must be two times in seconds, "
            f"but is {segment!r:.100}. Download it again."
        )
    text = entry.get("sentence") if config.use_annotation_text else record.get("caption")
    if not isinstance(text, str) or not text.strip():
        source = (
            f"`sentence` in {config.trainval_annotation}"
            if config.use_annotation_text
            else "`caption`"
        )
        raise DataError(
            f"{where}: {source} must be a text, but is {text!r:.100}. Correct or remove the record."
        )
    return YoucookClip(video_id, *_whole_seconds(segment[0], segment[1], where), text)


def _whole_seconds(start_s: float, end_s: float, where: str) -> tuple[int, int]:
    """Returns both times as integers; DataError when they are no stretch of whole seconds."""
    if not (
        0 <= start_s < end_s < float("inf") and start_s == int(start_s) and end_s == int(end_s)
    ):
        raise DataError(
            f"{where}: a clip must be a stretch of whole seconds, 0 <= start < end, but is {start_s:g} to {end_s:g}. "
            "Correct or remove it."
        )
    return int(start_s), int(end_s)


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
        logger.warning(
            "%s: %d of %d clips end after their video's features (%d videos: %s) and are cut there; %d of these begin "
            "after them too, and are scored without a second of video",
            reader.config.vfeat_dir, len(cut), len(clips), len(videos), listed, len(empty),
        )  # fmt: skip


def _count_seconds(path: Path) -> float:
    """Returns the number of rows from the file's head; infinity where there is none: reading will
    say so, by name.
    """
    try:
        return len(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, TypeError, *NPY_ERRORS):
        return float("inf")
