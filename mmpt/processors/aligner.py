"""Aligners: they draw clips from a video and its captions and build the tensors of an item.

A clip is a text window and a video window. The text window grows around a random caption. The video
window either covers the same time (`FixedLenAligner`, `VariedLenAligner`, `StartClipAligner`) or
only overlaps it (`OverlappedAligner`, as in VideoCLIP, arXiv 2109.14084, section 3.2).

For each clip, the draws are, in the order of the released code: the caption, the target length, the
text window, the video window. All clips of an item are drawn before any array is filled.

Legend: V videos, C clips per video, B = V * C clips, F = max_video_len seconds, E feature width,
T = max_len - max_video_len text slots, S sentences.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
import torch

from mmpt.batch import Captions, ClipBatch, ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors.base import ALIGNERS, ItemAligner
from mmpt.processors.caption_rows import CaptionRows
from mmpt.processors.sampling import text_span, video_window
from mmpt.processors.tensorise import (
    NUM_SPECIAL,
    TextSlots,
    VideoSlots,
    check_feature,
    check_finite,
)
from mmpt.processors.tokenizer import special_tokens


class Clip(NamedTuple):
    """A drawn clip. The clips of a video are sorted by these fields."""

    text_start: int  # caption index
    video_start: int  # seconds
    text_end: int  # caption index, exclusive
    video_end: int  # seconds, exclusive; may lie more than F after video_start


class Aligner(ItemAligner):
    """An aligner that builds tensors of one text and one video.

    Subclasses choose which captions and which seconds go into them.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.max_video_len = self.need_int("max_video_len")
        self.max_text_len = (
            self.need_int("max_len", self.max_video_len + NUM_SPECIAL + 1) - self.max_video_len
        )
        use_fast = config.use_fast is not False
        self.special = special_tokens(self.need_str("bert_name"), use_fast)

    def build_text_seq(
        self,
        text_feature: list[int] | Captions | CaptionRows,
        clip_indices: Sequence[int] = (0,),
        *,
        name: str = "the text",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns caps int64 [T] and cmasks bool [T] of one text.

        Args:
            text_feature: word-piece ids, or captions.
            clip_indices: the captions to join, in this order; ids are taken whole.
            name: the text, for messages.
        """
        if isinstance(text_feature, Mapping):
            cap = text_feature["cap"]
            text_feature = list(chain.from_iterable(cap[index] for index in clip_indices))
        caps_1T, cmasks_1T = self.build_texts([text_feature], name=name)
        return caps_1T[0], cmasks_1T[0]

    def build_texts(
        self, texts: Sequence[list[int]], *, name: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns caps int64 [S, T] and cmasks bool [S, T] of S lists of word-piece ids.

        Args:
            name: the texts, for messages.
        """
        slots = TextSlots(len(texts), self.max_text_len, self.special)
        for row, ids in enumerate(texts):
            slots.write(row, ids)
        self.check_vocabulary(slots.caps_BT, [name])
        return slots.tensors()

    def build_video_seq(
        self,
        video_feature: np.ndarray,
        clips: Sequence[tuple[int, int]] | None = None,
        *,
        name: str = "the video",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns vfeats float [F, E] and vmasks bool [F] of one video.

        Args:
            video_feature: float [seconds, E].
            clips: (start, end) of the seconds to join; None means the first F seconds.
            name: the video, for messages.
        Raises:
            DataError: features of another form, or not finite.
        """
        check_feature(video_feature, name)
        width, dtype = video_feature.shape[1], video_feature.dtype
        slots = VideoSlots(1, self.max_video_len, width, dtype)
        for start, end in [(0, self.max_video_len)] if clips is None else clips:
            slots.write(0, video_feature[start:end])
        check_finite(slots.vfeats_BFE, name)
        vfeats_1FE, vmasks_1F = slots.tensors()
        return vfeats_1FE[0], vmasks_1F[0]

    # The names that the documented calls of the released code use.
    _build_text_seq, _build_video_seq = build_text_seq, build_video_seq

    def check_vocabulary(self, caps_BT: np.ndarray, names: Sequence[str]) -> None:
        """Raises DataError if a word piece lies outside BERT's vocabulary.

        Args:
            names: the videos, for the message. Each has the same number of consecutive rows.
        """
        if caps_BT.max() >= self.special.vocab_size:
            worst = int(caps_BT.max(axis=1).argmax())
            name = names[worst * len(names) // len(caps_BT)]
            raise DataError(
                f"{name}: word-piece ids must be below {self.special.vocab_size}, the vocabulary "
                f"of `{self.config.bert_name}`, but {caps_BT[worst].max()} is there. Tokenise the "
                "captions with the same BERT, or correct `dataset.bert_name`."
            )


@ALIGNERS.register
class FixedLenAligner(Aligner):
    """An aligner that draws C clips of one video.

    A text window has about T - 3 word pieces. The video window lasts from the start of its first
    caption to the end of its last one.
    """

    clip_axes = 1

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        key = "subsampling" if config.clip_per_video is None else "clip_per_video"
        self.num_clips = self.need_int(key)
        # Norton sorts the clips, VideoCLIP keeps the order of the draws.
        self.sort_clips = config.sort_clips is not False

    def __call__(
        self, video_key: Any, video_feature: np.ndarray, text_feature: Captions, rng: random.Random
    ) -> ClipBatch:
        """Returns tensors with leading axis C and the video's id."""
        batch = self.align_videos([video_key], [video_feature], [text_feature], rng)
        batch["video_id"] = _video_id(video_key)
        return batch

    def align_videos(
        self,
        keys: Sequence[Any],
        features: Sequence[np.ndarray],
        captions: Sequence[Captions | CaptionRows],
        rng: random.Random,
    ) -> ClipBatch:
        """Returns tensors with leading axis B = V * C, video by video, clip by clip.

        Args:
            keys: V keys of videos.
            features: V arrays, float [seconds, E].
            captions: the captions of V videos.
        Raises:
            DataError: a video has no captions or no features, or features that are not finite
                [seconds, E] floats.
        """
        names = [video_name(key) for key in keys]
        rows = [CaptionRows.of(one) for one in captions]
        clips: list[Clip] = []
        for name, feature, caption in zip(names, features, rows, strict=True):
            check_feature(feature, name)
            clips += self.draw_clips(name, len(feature), caption, rng)
        text = self._gather_text(clips, rows)
        self.check_vocabulary(text.caps_BT, names)
        video = self._gather_video(clips, features, names)
        return _to_batch(text, video, clips)

    def _gather_text(self, clips: Sequence[Clip], rows: Sequence[CaptionRows]) -> TextSlots:
        """Returns the word pieces of all clips.

        The word pieces of all V videos are joined, so that each clip is one span of them.
        """
        pieces_P = np.concatenate([video.pieces for video in rows])
        sizes = chain.from_iterable(video.sizes for video in rows)
        # Caption n of all videos, counted through, is pieces_P[bounds[n] : bounds[n + 1]].
        bounds = np.fromiter(accumulate(sizes, initial=0), dtype=np.int64)
        num_captions = [len(video.sizes) for video in rows]
        first_captions_V = np.cumsum([0, *num_captions[:-1]])
        first_captions_B = np.repeat(first_captions_V, self.num_clips)
        begins_B = bounds[first_captions_B + [clip.text_start for clip in clips]]
        ends_B = bounds[first_captions_B + [clip.text_end for clip in clips]]
        text = TextSlots(len(clips), self.max_text_len, self.special)
        text.write_spans(pieces_P, begins_B, ends_B)
        return text

    def _gather_video(
        self, clips: Sequence[Clip], features: Sequence[np.ndarray], names: Sequence[str]
    ) -> VideoSlots:
        """Returns the seconds of all clips; DataError names a video that is not finite."""
        width, dtype = features[0].shape[1], np.result_type(*features)
        video = VideoSlots(len(clips), self.max_video_len, width, dtype)
        for place, clip in enumerate(clips):
            feature = features[place // self.num_clips]
            video.write(place, feature[clip.video_start : clip.video_end])
        for which, name in enumerate(names):
            own = slice(which * self.num_clips, (which + 1) * self.num_clips)
            check_finite(video.vfeats_BFE[own], name)
        return video

    def draw_clips(
        self, name: str, video_len: int, captions: CaptionRows, rng: random.Random
    ) -> list[Clip]:
        """Draws the C clips of one video of `video_len` seconds.

        Args:
            name: the video, for messages.
        Raises:
            DataError: the video has no captions or no seconds.
        """
        num_captions = len(captions.sizes)
        if not num_captions or video_len == 0:
            found = "no captions" if not num_captions else "no feature rows"
            raise DataError(
                f"{name}: must have captions and feature rows, but has {found}. Take it off the "
                "list."
            )
        clips = []
        for _ in range(self.num_clips):
            centre = rng.randint(0, num_captions - 1)
            target = self.target_len(rng)
            clips.append(self.draw_clip(video_len, captions, centre, target, rng))
        return sorted(clips) if self.sort_clips else clips

    def target_len(self, rng: random.Random) -> int:
        """Returns the word pieces wanted in a text window."""
        return self.max_text_len - NUM_SPECIAL

    def draw_clip(
        self, video_len: int, captions: CaptionRows, centre: int, target: int, rng: random.Random
    ) -> Clip:
        """Draws one clip: a text window, then a video window.

        Args:
            centre: the caption around which the text window grows.
            target: the word pieces wanted in it.
        """
        first, last, _ = text_span(
            captions.sizes, captions.start, captions.end, centre, target, rng
        )
        low_s, high_s = captions.start[first], captions.end[last - 1]
        start, end = self.video_span(video_len, low_s, high_s, rng)
        return Clip(first, start, last, end)

    def video_span(
        self, video_len: int, low_s: float, high_s: float, rng: random.Random
    ) -> tuple[int, int]:
        """Returns the seconds of a clip, half-open, for text from `low_s` to `high_s`."""
        end = min(math.ceil(high_s), video_len)
        # Text that ends before it starts, or before the video starts, makes an empty clip. A
        # negative end would count from the end of the features.
        start = max(min(math.floor(low_s), end), 0)
        return start, max(end, 0)


@ALIGNERS.register
class VariedLenAligner(FixedLenAligner):
    """A `FixedLenAligner` that draws the target length of every text window.

    The length is uniform from `sampled_min_len` to `sampled_max_len` word pieces.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.sampled_min_len = self.need_int("sampled_min_len")
        self.sampled_max_len = self.need_int("sampled_max_len", self.sampled_min_len)

    def target_len(self, rng: random.Random) -> int:
        """Draws the word pieces wanted, as released: up to sampled_max_len, though T - 3 fit."""
        return rng.randint(self.sampled_min_len, self.sampled_max_len)


@ALIGNERS.register
class StartClipAligner(VariedLenAligner):
    """A `VariedLenAligner` whose text windows begin with the first caption.

    They have about T - 3 word pieces. Caption and length are drawn, as released, but not used.
    """

    def draw_clip(
        self, video_len: int, captions: CaptionRows, centre: int, target: int, rng: random.Random
    ) -> Clip:
        """Draws the clip around caption 0."""
        return super().draw_clip(video_len, captions, 0, self.max_text_len - NUM_SPECIAL, rng)


@ALIGNERS.register
class OverlappedAligner(VariedLenAligner):
    """A `VariedLenAligner` whose video window grows around a random second of the text window."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.sampled_video_min_len = self.need_int("sampled_video_min_len")
        self.sampled_video_max_len = self.need_int(
            "sampled_video_max_len", self.sampled_video_min_len
        )

    def video_span(
        self, video_len: int, low_s: float, high_s: float, rng: random.Random
    ) -> tuple[int, int]:
        """Draws the centre and the length of the video window, then the window."""
        low, high = math.floor(low_s), math.ceil(high_s)
        centre = rng.randint(low, high) if low < high else (low + high) // 2
        centre = max(0, min(centre, video_len - 1))
        max_len = rng.randint(self.sampled_video_min_len, self.sampled_video_max_len)
        return video_window(video_len, max_len, centre, rng)


def _to_batch(text: TextSlots, video: VideoSlots, clips: list[Clip]) -> ClipBatch:
    caps, cmasks = text.tensors()
    vfeats, vmasks = video.tensors()
    batch = ClipBatch(caps=caps, cmasks=cmasks, vfeats=vfeats, vmasks=vmasks)
    columns = torch.tensor(clips, dtype=torch.int64).T.contiguous()
    for name, column in zip(Clip._fields, columns, strict=True):
        batch[name] = column  # type: ignore[literal-required]
    return batch


def _video_id(key: Any) -> str:
    return key if isinstance(key, str) else key[0]


def video_name(key: Any) -> str:
    """Returns the name of a key's video for messages, with its place if it is packed."""
    place = f" (row {key.row} of shard {key.shard})" if isinstance(key, ShardKey) else ""
    return f"video {_video_id(key)}{place}"
