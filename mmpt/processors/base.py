"""What every processor is: a class built from (`DatasetConfig`, `Split`), and the registries that
YAML names look up.

The four parts of an item are a meta processor (index -> keys), a video reader (key -> features), a
text reader (key -> captions) and an aligner (all of them -> tensors).
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import ConfigError
from mmpt.registry import Registry


class Processor:
    """Holds the configuration and the split; reads nothing yet."""

    takes_batches: ClassVar[bool] = False
    """True when keys, features and captions are lists over the V videos of a batch."""

    def __init__(self, config: DatasetConfig, split: Split):
        self.config = config
        self.split = split

    def need_str(self, key: str) -> str:
        """Return `dataset.<key>`; ConfigError when it is not set."""
        value = getattr(self.config, key)
        if not value:
            raise ConfigError(
                "dataset", [f"`dataset.{key}` must be set for {type(self).__name__}, but is not."]
            )
        return value

    def need_int(self, key: str, at_least: int = 1) -> int:
        """Return `dataset.<key>`; ConfigError when it is not set or below `at_least`."""
        value = getattr(self.config, key)
        if value is None or value < at_least:
            found = "is not set" if value is None else f"is {value}"
            problem = (
                f"`dataset.{key}` must be at least {at_least} "
                f"for {type(self).__name__}, but {found}."
            )
            raise ConfigError("dataset", [problem])
        return value


class MetaProcessor(Processor):
    """Maps an index to a video key and a text key: those of `items`, unless overridden."""

    items: Sequence[tuple[Any, Any]] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return (video key, text key); IndexError past the end."""
        return self.items[index]

    def list_path(self) -> str:
        """Return the split's list or annotation file."""
        return self.need_str(
            {Split.TRAIN: "train_path", Split.VALID: "val_path", Split.TEST: "test_path"}[
                self.split
            ]
        )


class VideoReader(Processor, ABC):
    """Reads the features of a video key."""

    @abstractmethod
    def __call__(self, key: Any) -> Any:
        """Return float [seconds, 512], or a list of them for a list of keys."""

    def has(self, key: Any) -> bool:
        """Say whether there are features for `key`; a cheap look, which those may deny that have
        nothing to look at.
        """
        return True


class TextReader(Processor, ABC):
    """Reads the captions of a text key."""

    @abstractmethod
    def __call__(self, key: Any) -> Any:
        """Return `Captions`, a list of them for a list of keys, or a flat list of word-piece
        ids.
        """


class ItemAligner(Processor, ABC):
    """Makes the tensors of an item."""

    clip_axes: ClassVar[int] = 0
    """Leading axes of an item over which there is one clip each: 1 for the clips of a video, 2 for
    videos and clips.

    The task merges them with the batch's own axis. With 0 the model gets a batch as it was
    collated.
    """
    fills_batch: ClassVar[bool] = False
    """True when items have sizes of their own, so that a batch can hold but one."""

    @abstractmethod
    def __call__(
        self, video_key: Any, video_feature: Any, text_feature: Any, rng: random.Random
    ) -> ClipBatch:
        """Return the tensors; every draw comes from `rng`."""


PACKAGES = ("mmpt.processors", "mmpt.endtasks")
META_PROCESSORS: Registry[MetaProcessor] = Registry("meta processor", MetaProcessor, *PACKAGES)
VIDEO_PROCESSORS: Registry[VideoReader] = Registry("video processor", VideoReader, *PACKAGES)
TEXT_PROCESSORS: Registry[TextReader] = Registry("text processor", TextReader, *PACKAGES)
ALIGNERS: Registry[ItemAligner] = Registry("aligner", ItemAligner, *PACKAGES)
