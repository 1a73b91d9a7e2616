"""The base classes of processors, which are built from (`DatasetConfig`, `Split`), and the
registries that YAML names look up.

The four parts of an item are a meta processor (index -> keys), a video reader (key -> features), a
text reader (key -> captions) and an aligner (all of them -> tensors).
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import ConfigError
from mmpt.registry import Registry
from mmpt.shards.feature_info import check_feature_info


class Processor:
    """A part of an item. It holds the configuration and the split, and reads nothing yet."""

    Config: ClassVar[type[DatasetConfig]] = DatasetConfig
    """The keys under `dataset` that the class reads. A subclass of `DatasetConfig` adds keys."""
    takes_batches: ClassVar[bool] = False
    """True if keys, features and captions are lists over the V videos of a batch."""

    def __init__(self, config: DatasetConfig, split: Split):
        self.config = config
        self.split = split

    def need_str(self, key: str) -> str:
        """Returns `dataset.<key>`; ConfigError if it is not set."""
        value = getattr(self.config, key)
        if not value:
            problem = (
                f"`dataset.{key}` must be set for {type(self).__name__}, but is not."
            )
            raise ConfigError("dataset", [problem])
        return value

    def need_int(self, key: str, at_least: int = 1) -> int:
        """Returns `dataset.<key>`; ConfigError if it is not set or below `at_least`."""
        value = getattr(self.config, key)
        if value is None or value < at_least:
            found = "is not set" if value is None else f"is {value}"
            problem = (
                f"`dataset.{key}` must be at least {at_least} for {type(self).__name__}, "
                f"but {found}."
            )
            raise ConfigError("dataset", [problem])
        return value


class MetaProcessor(Processor):
    """A sequence of items, which maps an index to a video key and a text key.

    The keys are read from `items`, unless a subclass overrides the methods.
    """

    items: Sequence[tuple[Any, Any]] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Returns (video key, text key); IndexError past the end."""
        return self.items[index]

    def list_path(self) -> str:
        """Returns the split's list or annotation file."""
        keys = {
            Split.TRAIN: "train_path",
            Split.VALID: "val_path",
            Split.TEST: "test_path",
        }
        key = keys[self.split]
        return self.need_str(key)


class VideoReader(Processor, ABC):
    """A reader of features.

    Raises:
        DataError: `features.json` in `dataset.vfeat_dir` says that they have another width or rate.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        check_feature_info(config)

    @abstractmethod
    def __call__(self, key: Any) -> Any:
        """Returns float [rows, width] of a video key, or a list of them for a list of keys."""

    def has(self, key: Any) -> bool:
        """Cheap existence check. Readers without files return True."""
        return True


class TextReader(Processor, ABC):
    """A reader of captions."""

    @abstractmethod
    def __call__(self, key: Any) -> Any:
        """Returns the `Captions` of a text key, a list of them for a list of keys, or a flat list
        of word-piece ids.
        """


class ItemAligner(Processor, ABC):
    """A processor that builds the tensors of an item."""

    has_clip_axis: ClassVar[bool] = False
    """True if the tensors of an item have a leading axis of clips, along which a batch joins the
    items. Otherwise items are stacked on a new axis.
    """
    fills_batch: ClassVar[bool] = False
    """True if items differ in size, so that each batch must hold exactly one."""

    @abstractmethod
    def __call__(
        self, video_key: Any, video_feature: Any, text_feature: Any, rng: random.Random
    ) -> ClipBatch:
        """Returns the tensors; every draw comes from `rng`."""


PACKAGES = ("mmpt.processors", "mmpt.endtasks")
META_PROCESSORS: Registry[MetaProcessor] = Registry(
    "meta processor", MetaProcessor, *PACKAGES
)
VIDEO_PROCESSORS: Registry[VideoReader] = Registry(
    "video processor", VideoReader, *PACKAGES
)
TEXT_PROCESSORS: Registry[TextReader] = Registry(
    "text processor", TextReader, *PACKAGES
)
ALIGNERS: Registry[ItemAligner] = Registry("aligner", ItemAligner, *PACKAGES)
PARTS: dict[str, Registry[Any]] = {
    "meta_processor": META_PROCESSORS,
    "video_processor": VIDEO_PROCESSORS,
    "text_processor": TEXT_PROCESSORS,
    "aligner": ALIGNERS,
}
"""The parts of an item by their keys under `dataset`, in the order of `MMDataset`'s arguments."""
