"""MSR-VTT retrieval: a sentence per test video, and about twenty per training video.

In training, the text of a video is one of its captions. `DSAligner` draws it in every epoch from
the item's own generator. (In the release, the text processor draws it from a global one.)
"""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from mmpt.batch import Split
from mmpt.config.schema import Count, DatasetConfig, InputPath
from mmpt.errors import DataError
from mmpt.processors import base, downstream
from mmpt.utils.validation import NotBlank, Row, read_json_as, read_table


class _Video(Row):
    video_id: NotBlank


class _Sentence(_Video):
    sentence: NotBlank


class _Caption(BaseModel):
    video_id: str
    caption: str


class _Captions(BaseModel):
    sentences: Annotated[list[_Caption], Field(min_length=1)]


@base.META_PROCESSORS.register
class MSRVTTMetaProcessor(base.MetaProcessor):
    """The videos of a CSV with the column video_id.

    Validation and test files have the captions in the column sentence, which is the text key. The
    training list is `train_path`. If `full_test_path` and `jsfusion_path` are given, the videos of
    the first that are not in the second are added. The list is repeated `dup` times, and its text
    key is the video id.
    """

    class Config(DatasetConfig):
        """The keys of the class."""

        jsfusion_path: str | None = None
        """CSV with the ids of the test split, which are left out of training."""
        full_test_path: InputPath = None
        """CSV of the full test split. Its other videos are added to training."""
        dup: Count | None = None
        """Number of times that the training list is repeated. Default: once."""

    config: Config

    def __init__(self, config: Config, split: Split):
        super().__init__(config, split)
        path = self.list_path()
        if split is Split.TRAIN:
            items = [(video, video) for video in training_videos(path, config)]
        else:
            items = read_sentences(path)
        self.items = downstream.keep_with_features(
            items, lambda item: item[0], config, split
        )
        if split is Split.TRAIN and config.dup:
            self.items *= config.dup


def read_sentences(path: str) -> list[tuple[str, str]]:
    """Returns the video id and the sentence of each row of a validation or test file.

    Raises:
        DataError: a missing or wrong table, or a video listed twice.
    """
    items = []
    for row in read_table(path, _Sentence):
        items.append((row.video_id, row.sentence))
    downstream.check_listed_once(path, "`video_id`", (video for video, _ in items))
    downstream.warn_of_equal_captions(path, (sentence for _, sentence in items))
    return items


def training_videos(path: str, config: MSRVTTMetaProcessor.Config) -> list[str]:
    """Returns the videos of the training list, then the videos of the full test split to add."""
    videos = video_ids(path)
    if config.full_test_path and config.jsfusion_path:
        tested = set(video_ids(config.jsfusion_path))
        for video in video_ids(config.full_test_path):
            if video not in tested:
                videos.append(video)
    return videos


def video_ids(path: str) -> list[str]:
    """Returns the column video_id of a CSV, in its order."""
    return [row.video_id for row in read_table(path, _Video)]


@base.TEXT_PROCESSORS.register
class MSRVTTTextProcessor(downstream.TextProcessor):
    """A reader of a sentence as word-piece ids, or in training of all captions of a video."""

    class Config(DatasetConfig):
        """The keys of the class."""

        json_path: InputPath = None
        """`MSRVTT_data.json`: captions for training."""

    config: Config

    def __init__(self, config: Config, split: Split):
        super().__init__(config, split)
        self.captions: dict[str, list[str]] = {}
        if split is Split.TRAIN:
            self.captions = read_captions(self.need_str("json_path"))
        # Word pieces of the captions that were tokenised before. `dup` repeats each video.
        self.known: dict[str, list[list[int]]] = {}

    def __call__(self, key: str) -> Any:
        """Returns the ids of the sentence `key`; in training, a list of ids for each caption of the
        video `key`.

        Raises:
            DataError: in training, a video without captions.
        """
        if self.split is not Split.TRAIN:
            return self.encode(key)
        if key not in self.captions:
            raise DataError(
                f"{self.config.json_path}: must have captions of video {key}, which is in "
                "`dataset.train_path`, but has none. The two files must belong together."
            )
        if key not in self.known:
            self.known[key] = [self.encode(text) for text in self.captions[key]]
        return self.known[key]


def read_captions(path: str) -> dict[str, list[str]]:
    """Returns the captions of each video of `MSRVTT_data.json`, in their order, without empty ones.

    Raises:
        DataError: another layout.
    """
    remedy = (
        'It must be MSR-VTT\'s file, {"sentences": [{"video_id": ..., "caption": ...}, ...]}. '
        "Download it again, or correct `dataset.json_path`."
    )
    captions: dict[str, list[str]] = {}
    for sentence in read_json_as(path, _Captions, remedy).sentences:
        if sentence.caption.strip():
            of_video = captions.setdefault(sentence.video_id, [])
            of_video.append(sentence.caption)
    return captions
