"""MSR-VTT retrieval: a sentence per test video, about twenty per training video.

In training a video's text is one of its captions, drawn anew every epoch by the aligner from the
item's own generator (the release drew it in the text processor from a global one); `DSAligner`
draws when it gets several captions.
"""

from __future__ import annotations

from typing import Any

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.endtasks.tables import Row, read_table
from mmpt.errors import DataError
from mmpt.processors.base import META_PROCESSORS, TEXT_PROCESSORS, MetaProcessor
from mmpt.processors.downstream import TextProcessor, keep_with_features, warn_of_equal_captions
from mmpt.utils.io import read_json
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


@META_PROCESSORS.register
class MSRVTTMetaProcessor(MetaProcessor):
    """Videos of a CSV with the column video_id; validation and test files have their captions in
    the column sentence.

    The training list is `train_path`, extended (when both paths are given) by those videos of
    `full_test_path` that `jsfusion_path` does not test on, and repeated `dup` times. Its text key
    is the video id, else the sentence.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.items = self._training_items() if split is Split.TRAIN else self._sentences()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self.items[index]

    def _training_items(self) -> list[tuple[str, str]]:
        videos = video_ids(self.list_path())
        if self.config.full_test_path and self.config.jsfusion_path:
            tested = set(video_ids(self.config.jsfusion_path))
            videos += [
                video for video in video_ids(self.config.full_test_path) if video not in tested
            ]
        videos = keep_with_features(videos, str, self.config, self.split)
        return [(video, video) for video in videos] * (self.config.dup or 1)

    def _sentences(self) -> list[tuple[str, str]]:
        path = self.list_path()
        rows = read_table(path, ["video_id", "sentence"])
        check_unique(path, "video_id", rows)
        items = [(row.values["video_id"], row.values["sentence"]) for row in rows]
        warn_of_equal_captions(path, (sentence for _, sentence in items))
        return keep_with_features(items, lambda item: item[0], self.config, self.split)


@TEXT_PROCESSORS.register
class MSRVTTTextProcessor(TextProcessor):
    """Word-piece ids: of a sentence, or in training of every caption that `json_path` has for a
    video.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        training = split is Split.TRAIN
        self.captions = read_captions(self.need_str("json_path")) if training else {}
        self.known: dict[str, list[list[int]]] = {}  # `dup` brings a video up many times

    def __call__(self, key: str) -> Any:
        """Returns the ids of the sentence `key`; in training, a list of them per caption of the
        video `key`.

        Raises:
            DataError: in training, a video without captions.
        """
        if self.split is not Split.TRAIN:
            return self.encode(key)
        if key not in self.captions:
            raise DataError(
                f"{self.config.json_path}: must have captions of video {key}, which is in `dataset.train_path`, but "
                "has none. The two files must belong together."
            )
        if key not in self.known:
            self.known[key] = [self.encode(text) for text in self.captions[key]]
        return self.known[key]


def video_ids(path: str) -> list[str]:
    """Returns the column video_id of a CSV, in its order."""
    return [row.values["video_id"] for row in read_table(path, ["video_id"])]


def read_captions(path: str) -> dict[str, list[str]]:
    """Returns the captions of each video of `MSRVTT_data.json`, in their order; empty ones are
    counted and left out.

    Raises:
        DataError: another layout.
    """
    value = read_json(path)
    sentences = value.get("sentences") if isinstance(value, dict) else None
    if not isinstance(sentences, list) or not sentences:
        raise DataError(
            f'{path}: must be {{"sentences": [{{"video_id": ..., "caption": ...}}, ...]}}, but is something else. '
            "Correct `dataset.json_path`."
        )
    captions: dict[str, list[str]] = {}
    num_empty = 0
    for number, sentence in enumerate(sentences):
        fields = sentence if isinstance(sentence, dict) else {}
        video, text = fields.get("video_id"), fields.get("caption")
        if not isinstance(video, str) or not isinstance(text, str):
            raise DataError(
                f"{path}: every sentence must have the strings `video_id` and `caption`, but number {number} is "
                f"{sentence!r:.80}. Download the file again."
            )
        if text.strip():
            captions.setdefault(video, []).append(text)
        else:
            num_empty += 1
    if num_empty:
        logger.warning("%s: %d of %d captions are empty; left out", path, num_empty, len(sentences))
    return captions


def check_unique(path: str, column: str, rows: list[Row]) -> None:
    """Raises DataError when two rows have the same value in `column`."""
    lines: dict[str, int] = {}
    for row in rows:
        value = row.values[column]
        if value in lines:
            raise DataError(
                f"{path}: each `{column}` must be listed once, but {value} is on lines {lines[value]} and {row.line}. "
                "Keep one of them."
            )
        lines[value] = row.line
