"""Readers and an aligner for benchmarks: a `.npy` per video, a sentence, one clip per item."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import ConfigError, DataError
from mmpt.processors.aligner import Aligner, video_id_of, video_name
from mmpt.processors.base import (
    ALIGNERS,
    TEXT_PROCESSORS,
    VIDEO_PROCESSORS,
    TextReader,
    VideoReader,
)
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.utils.io import load_npy
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

Item = TypeVar("Item")
MAX_LISTED = 5
_FLOATS = ("<f2", "<f4", "<f8", ">f2", ">f4", ">f8")


@VIDEO_PROCESSORS.register
class VideoProcessor(VideoReader):
    """A reader of features from `<vfeat_dir>/<id>.npy`."""

    def __call__(self, key: Any) -> np.ndarray:
        """Returns float [rows, width] for an id, or for a key whose first element is one.

        Raises:
            DataError: the file is missing, or does not contain floats of this shape.
        """
        path = self.path(key)
        remedy = "Extract this video's features, or take it off the list."
        # Only the rows that are used are read.
        feature = load_npy(path, remedy, mmap_mode="r")
        shape = list(feature.shape)
        width = self.config.feature_dim
        is_table = len(shape) == 2 and shape[1] == width
        if not is_table or feature.dtype not in _FLOATS:
            raise DataError(
                f"{path}: features must be floats of shape [rows, {width}], but are "
                f"{feature.dtype} of shape {shape}. Set `model.input_dim` to their width, or "
                "correct `dataset.vfeat_dir`."
            )
        native = feature.dtype.newbyteorder("=")  # torch knows no other order of bytes
        return feature.astype(native, copy=False)

    def has(self, key: Any) -> bool:
        """Returns True if the video's file exists."""
        return self.path(key).is_file()

    def path(self, key: Any) -> Path:
        """Returns the feature file of an id, or of a key whose first element is one."""
        folder = Path(self.need_str("vfeat_dir"))
        return folder / f"{video_id_of(key)}.npy"


@TEXT_PROCESSORS.register
class TextProcessor(TextReader):
    """A reader of sentences as word-piece ids, without special tokens."""

    def __call__(self, key: Any) -> Any:
        """Returns all ids of the sentence `key`. The aligner cuts them."""
        return self.encode(key)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`."""
        bert_name = self.need_str("bert_name")
        tokenizer = load_tokenizer(bert_name, self.config.use_fast)
        # Without `verbose`, transformers does not warn that long texts result in indexing errors.
        # They do not, because the aligner cuts the ids.
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


@ALIGNERS.register
class DSAligner(Aligner):
    """An aligner that takes the first F rows and the whole sentence. `video_id` is the key."""

    def __call__(
        self,
        video_key: Any,
        video_feature: np.ndarray,
        text_feature: Any,
        rng: random.Random,
    ) -> ClipBatch:
        """Returns caps and cmasks [T], vfeats [F, width], vmasks [F].

        Args:
            text_feature: word-piece ids of a sentence; or a list of such lists, of which one is
                drawn (MSR-VTT's training videos have several captions).
        Raises:
            ConfigError: several captions of a test item.
        """
        name = video_name(video_key)
        if text_feature and isinstance(text_feature[0], list):
            num_texts = len(text_feature)
            if self.split is Split.TEST:
                problem = (
                    f"`dataset.aligner: {type(self).__name__}` takes one text per test item, but "
                    f"`dataset.text_processor: {self.config.text_processor}` makes {num_texts}."
                )
                raise ConfigError("dataset", [problem])
            chosen = rng.randint(0, num_texts - 1)
            text_feature = text_feature[chosen]
        caps, cmasks = self.build_text_seq(text_feature, name=name)
        vfeats, vmasks = self.build_video_seq(video_feature, name=name)
        return ClipBatch(
            caps=caps, cmasks=cmasks, vfeats=vfeats, vmasks=vmasks, video_id=video_key
        )


def keep_with_features(
    items: Sequence[Item],
    video_of: Callable[[Item], str],
    config: DatasetConfig,
    split: Split,
) -> list[Item]:
    """Returns the items whose video has features, in their order.

    Videos without features are counted in one warning. A test split keeps all its items, because
    scoring names the videos without features and stops.

    Args:
        items: items of any kind. Several may belong to one video.
        video_of: returns the id of an item's video, whose features are in `<vfeat_dir>/<id>.npy`.
        config: has vfeat_dir and max_missing, the largest share of videos that may lack features.
    Raises:
        DataError: too many videos have no features, or no video has any.
    """
    if split is Split.TEST:
        return list(items)
    reader = VideoProcessor(config, split)
    # Look up each video once, because several items may share one. Then check the fraction that is
    # missing, and drop the items of missing videos.
    videos = [video_of(item) for item in items]
    has_features = {}
    missing = []
    for video in dict.fromkeys(videos):
        has_features[video] = reader.has(video)
        if not has_features[video]:
            missing.append(video)
    if not missing:
        return list(items)
    num_missing = len(missing)
    num_videos = len(has_features)
    listed = ", ".join(missing[:MAX_LISTED])
    if num_missing > MAX_LISTED:
        listed += ", ..."
    problem = (
        f"{config.vfeat_dir}: {num_missing} of the {num_videos} videos of the "
        f"{split.value} split have no features ({listed})"
    )
    share = num_missing / num_videos
    if share > config.max_missing or share == 1:
        raise DataError(
            f"{problem}, but at most {config.max_missing:.0%} may be missing. Extract "
            "them, correct `dataset.vfeat_dir`, or raise `dataset.max_missing`."
        )
    logger.warning("%s; left out", problem)
    kept = []
    for item, video in zip(items, videos, strict=True):
        if has_features[video]:
            kept.append(item)
    return kept


def warn_of_equal_captions(path: str, captions: Iterable[str]) -> None:
    """Warns of captions that several rows share, because no model can distinguish their videos."""
    counts = Counter(captions)
    shared = _repeated(counts)
    if shared:
        num_rows = sum(counts[caption] for caption in shared)
        listed = "; ".join(shared[:MAX_LISTED])
        logger.warning(
            f"{path}: {num_rows} of {counts.total()} rows share their caption with another "
            f"({listed})"
        )


def check_listed_once(path: str, kind: str, names: Iterable[str]) -> None:
    """Raises DataError if a name occurs twice. `kind` is the kind of names, for the message."""
    repeated = _repeated(Counter(names))
    if repeated:
        raise DataError(
            f"{path}: each {kind} must be listed once, but {len(repeated)} are listed again "
            f"(first: {repeated[0]}). Keep one of each."
        )


def _repeated(counts: Counter[str]) -> list[str]:
    """Returns the texts that were counted more than once."""
    return [text for text, count in counts.items() if count > 1]
