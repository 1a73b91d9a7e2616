"""What the downstream sets share: one `.npy` per video, tokenised sentences, and one clip per item without a draw."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.batch import ClipBatch
from mmpt.errors import DataError
from mmpt.processors.aligner import Aligner, video_name
from mmpt.processors.base import ALIGNERS, FEATURE_DIM, TEXT_PROCESSORS, VIDEO_PROCESSORS, TextReader, VideoReader
from mmpt.processors.tokenizer import load_tokenizer


@VIDEO_PROCESSORS.register
class VideoProcessor(VideoReader):
    """Features of a video from `<vfeat_dir>/<id>.npy`."""

    def __call__(self, key: Any) -> np.ndarray:
        """Return float [seconds, 512] for an id, or for a key whose first element is one.

        Raises:
            DataError: no such file, or something else in it.
        """
        path = self.path(key)
        try:
            feature = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file. Extract this video's features, or take it off the list.") from None
        except (ValueError, EOFError, OSError) as err:
            raise DataError(f"{path}: not a complete .npy file ({err}). Extract this video again.") from None
        if feature.ndim != 2 or feature.shape[1] != FEATURE_DIM or feature.dtype.kind != "f":
            raise DataError(
                f"{path}: features must be floats of shape [seconds, {FEATURE_DIM}], but are {feature.dtype} of shape "
                f"{list(feature.shape)}. Extract them with S3D."
            )
        return feature

    def has(self, key: Any) -> bool:
        """Say whether the video's file is there."""
        return self.path(key).is_file()

    def path(self, key: Any) -> Path:
        """Return where the features of a video id, or of a key whose first element is one, are."""
        video_id = key if isinstance(key, str) else key[0]
        return Path(self.need_str("vfeat_dir")) / f"{video_id}.npy"


@TEXT_PROCESSORS.register
class TextProcessor(TextReader):
    """Word-piece ids of a sentence, without special tokens."""

    def __call__(self, key: str) -> list[int]:
        """Return the ids of `key`, however many; the aligner cuts them."""
        tokenizer = load_tokenizer(self.need_str("bert_name"), self.config.use_fast is not False)
        return tokenizer(key, add_special_tokens=False)["input_ids"]


@ALIGNERS.register
class DSAligner(Aligner):
    """The first F seconds and the whole sentence; `video_id` is the key as given."""

    def __call__(
        self, video_key: Any, video_feature: np.ndarray, text_feature: list[int], rng: random.Random
    ) -> ClipBatch:
        """Return caps and cmasks [T], vfeats [F, 512], vmasks [F]; nothing is drawn."""
        name = video_name(video_key)
        caps, cmasks = self.build_text_seq(text_feature, name=name)
        vfeats, vmasks = self.build_video_seq(video_feature, name=name)
        return ClipBatch(caps=caps, cmasks=cmasks, vfeats=vfeats, vmasks=vmasks, video_id=video_key)
