"""Aligners draw clips from a video and its captions and make tensors of them.

A clip is a text window around a random caption, and a video window that is either the same stretch of time
(`FixedLenAligner`, `VariedLenAligner`, `StartClipAligner`) or one that merely overlaps it (`OverlappedAligner`, as in
VideoCLIP, arXiv 2109.14084, section 3.2). All clips are drawn first, then copied into arrays that are allocated once.
The drawing order (caption, target length, text window, video window) is the release's.

Legend: V videos, C clips per video, F = max_video_len seconds, T = max_len - max_video_len text slots.
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
from mmpt.processors.sampling import draw_int, text_span, video_window
from mmpt.processors.tensorise import NUM_SPECIAL, TextSlots, VideoSlots, check_feature, check_finite
from mmpt.processors.tokenizer import special_tokens


class Clip(NamedTuple):
    """One drawn clip; clips of a video are sorted by these fields."""

    text_start: int  # caption index
    video_start: int  # seconds
    text_end: int  # caption index, exclusive
    video_end: int  # seconds, exclusive; may lie more than F after video_start


class Aligner(ItemAligner):
    """Makes tensors of one text and one video; subclasses choose what goes into them."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.max_video_len = self.need_int("max_video_len")
        self.max_text_len = self.need_int("max_len", self.max_video_len + NUM_SPECIAL + 1) - self.max_video_len
        use_fast = config.use_fast is not False
        self.special = special_tokens(self.need_str("bert_name"), use_fast)

    def build_text_seq(
        self,
        text_feature: list[int] | Captions | CaptionRows,
        clip_indices: Sequence[int] = (0,),
        *,
        name: str = "the text",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return caps int64 [T] and cmasks bool [T] of a flat id list, or of captions `clip_indices` in that order.

        `name` stands in messages.
        """
        if isinstance(text_feature, Mapping):
            cap = text_feature["cap"]
            text_feature = list(chain.from_iterable(cap[index] for index in clip_indices))
        caps_1T, cmasks_1T = self.build_texts([text_feature], name=name)
        return caps_1T[0], cmasks_1T[0]

    def build_texts(self, texts: Sequence[list[int]], *, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return caps int64 [S, T] and cmasks bool [S, T] of S id lists; `name` stands in messages."""
        slots = TextSlots(len(texts), self.max_text_len, self.special)
        for row, ids in enumerate(texts):
            slots.write(row, ids)
        self.check_vocabulary(slots.caps_BT, [name])
        return slots.tensors()

    def build_video_seq(
        self, video_feature: np.ndarray, clips: Sequence[tuple[int, int]] | None = None, *, name: str = "the video"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return vfeats float [F, 512] and vmasks bool [F] of the seconds in `clips` (default: the first F).

        `name` stands in messages.
        """
        check_feature(video_feature, name)
        slots = VideoSlots(1, self.max_video_len, video_feature.shape[1], video_feature.dtype)
        for start, end in [(0, self.max_video_len)] if clips is None else clips:
            slots.write(0, video_feature[start:end])
        check_finite(slots.vfeats_BFE, name)
        vfeats_1FE, vmasks_1F = slots.tensors()
        return vfeats_1FE[0], vmasks_1F[0]

    _build_text_seq, _build_video_seq = build_text_seq, build_video_seq  # names in the original's documented calls

    def check_vocabulary(self, caps_BT: np.ndarray, names: Sequence[str]) -> None:
        """Raise DataError for a word piece outside BERT's vocabulary; `names` are the videos of equal parts of B."""
        if caps_BT.max() >= self.special.vocab_size:
            worst = int(caps_BT.max(axis=1).argmax())
            raise DataError(
                f"{names[worst * len(names) // len(caps_BT)]}: word-piece ids must be below {self.special.vocab_size}, "
                f"the vocabulary of `{self.config.bert_name}`, but {caps_BT[worst].max()} is there. Tokenise the "
                "captions with the same BERT, or correct `dataset.bert_name`."
            )


@ALIGNERS.register
class FixedLenAligner(Aligner):
    """C clips of one video: text windows of T - 3 word pieces, and the seconds from first start to last end."""

    clip_axes = 1

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.num_clips = self.need_int("subsampling" if config.clip_per_video is None else "clip_per_video")
        self.sort_clips = config.sort_clips is not False  # Norton sorts; VideoCLIP keeps the order of the draws

    def __call__(
        self, video_key: Any, video_feature: np.ndarray, text_feature: Captions, rng: random.Random
    ) -> ClipBatch:
        """Return tensors with leading axis C and the video's id."""
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
        """Return tensors with leading axis V * C: video by video, clip by clip.

        Raises:
            DataError: a video has no captions or no features, or features that are not finite [seconds, width] floats.
        """
        names = [video_name(key) for key in keys]
        rows = [CaptionRows.of(one) for one in captions]
        drawn: list[Clip] = []
        for name, feature, caption in zip(names, features, rows, strict=True):
            check_feature(feature, name)
            drawn += self.draw_clips(name, len(feature), caption, rng)
        text = self._gather_text(drawn, rows)
        self.check_vocabulary(text.caps_BT, names)
        width, dtype = features[0].shape[1], np.result_type(*features)
        video = VideoSlots(len(drawn), self.max_video_len, width, dtype)
        for place, clip in enumerate(drawn):
            video.write(place, features[place // self.num_clips][clip.video_start : clip.video_end])
        for which, name in enumerate(names):
            check_finite(video.vfeats_BFE[which * self.num_clips : (which + 1) * self.num_clips], name)
        return _to_batch(text, video, drawn)

    def _gather_text(self, drawn: Sequence[Clip], rows: Sequence[CaptionRows]) -> TextSlots:
        """Gather the word pieces of all clips from those of all videos, side by side."""
        bounds = np.fromiter(accumulate(chain.from_iterable(each.sizes for each in rows), initial=0), dtype=np.int64)
        first_caption = np.repeat(np.cumsum([0, *(len(each.sizes) for each in rows[:-1])]), self.num_clips)
        text = TextSlots(len(drawn), self.max_text_len, self.special)
        begins = bounds[first_caption + [clip.text_start for clip in drawn]]
        ends = bounds[first_caption + [clip.text_end for clip in drawn]]
        text.write_spans(np.concatenate([each.pieces for each in rows]), begins, ends)
        return text

    def draw_clips(self, name: str, video_len: int, captions: CaptionRows, rng: random.Random) -> list[Clip]:
        """Draw the C clips of one video of `video_len` seconds; `name` is for messages."""
        num_captions = len(captions.sizes)
        if not num_captions or video_len == 0:
            found = "no captions" if not num_captions else "no feature rows"
            raise DataError(f"{name}: must have captions and feature rows, but has {found}. Take it off the list.")
        clips = []
        for _ in range(self.num_clips):
            centre = draw_int(rng, 0, num_captions - 1)
            clips.append(self.draw_clip(video_len, captions, centre, self.target_len(rng), rng))
        return sorted(clips) if self.sort_clips else clips

    def target_len(self, rng: random.Random) -> int:
        """Return the word pieces wanted in a text window."""
        return self.max_text_len - NUM_SPECIAL

    def draw_clip(self, video_len: int, captions: CaptionRows, centre: int, target: int, rng: random.Random) -> Clip:
        """Draw one clip around caption `centre`: a text window of about `target` word pieces, then its seconds."""
        first, last, _ = text_span(captions.sizes, captions.start, captions.end, centre, target, rng)
        start, end = self.video_span(video_len, captions.start[first], captions.end[last - 1], rng)
        return Clip(first, start, last, end)

    def video_span(self, video_len: int, low_s: float, high_s: float, rng: random.Random) -> tuple[int, int]:
        """Return the clip's seconds, half-open, for text that lasts from `low_s` to `high_s`."""
        end = min(math.ceil(high_s), video_len)
        # An end before the start, or before the video's, makes an empty clip; a negative end would count from behind.
        start = max(min(math.floor(low_s), end), 0)
        return start, max(end, 0)


@ALIGNERS.register
class VariedLenAligner(FixedLenAligner):
    """As `FixedLenAligner`, with a random target of sampled_min_len to sampled_max_len word pieces for every clip."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.sampled_min_len = self.need_int("sampled_min_len")
        self.sampled_max_len = self.need_int("sampled_max_len", self.sampled_min_len)

    def target_len(self, rng: random.Random) -> int:
        """Draw the word pieces wanted; up to sampled_max_len although only T - 3 fit, as released."""
        return draw_int(rng, self.sampled_min_len, self.sampled_max_len)


@ALIGNERS.register
class StartClipAligner(VariedLenAligner):
    """Text windows from the first caption on, of T - 3 word pieces; the drawn caption and length are discarded."""

    def draw_clip(self, video_len: int, captions: CaptionRows, centre: int, target: int, rng: random.Random) -> Clip:
        """Draw the clip around caption 0."""
        return super().draw_clip(video_len, captions, 0, self.max_text_len - NUM_SPECIAL, rng)


@ALIGNERS.register
class OverlappedAligner(VariedLenAligner):
    """As `VariedLenAligner`, but the video window grows around a random second of the text's stretch of time."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.sampled_video_min_len = self.need_int("sampled_video_min_len")
        self.sampled_video_max_len = self.need_int("sampled_video_max_len", self.sampled_video_min_len)

    def video_span(self, video_len: int, low_s: float, high_s: float, rng: random.Random) -> tuple[int, int]:
        """Draw centre and length, then the window; the window may end at its centre."""
        low, high = math.floor(low_s), math.ceil(high_s)
        centre = draw_int(rng, low, high) if low < high else (low + high) // 2
        centre = max(0, min(centre, video_len - 1))
        max_len = draw_int(rng, self.sampled_video_min_len, self.sampled_video_max_len)
        return video_window(video_len, max_len, centre, rng)


def _to_batch(text: TextSlots, video: VideoSlots, clips: list[Clip]) -> ClipBatch:
    caps, cmasks = text.tensors()
    vfeats, vmasks = video.tensors()
    batch = ClipBatch(caps=caps, cmasks=cmasks, vfeats=vfeats, vmasks=vmasks)
    fields = ("text_start", "video_start", "text_end", "video_end")
    for name, column in zip(fields, torch.from_numpy(np.array(clips, dtype=np.int64).T.copy()), strict=True):
        batch[name] = column  # type: ignore[literal-required]
    return batch


def _video_id(key: Any) -> str:
    return key if isinstance(key, str) else key[0]


def video_name(key: Any) -> str:
    """Return what messages call the video of `key`, with its place where it is packed."""
    place = f" (row {key.row} of shard {key.shard})" if isinstance(key, ShardKey) else ""
    return f"video {_video_id(key)}{place}"
