"""Aligners: they draw clips from a video and its captions and build the tensors of an item.

A clip is a text window and a video window. The text window grows around a random caption. The video
window either covers the same time (`FixedLenAligner`, `VariedLenAligner`, `StartClipAligner`) or
only overlaps it (`OverlappedAligner`, as in VideoCLIP, arXiv 2109.14084, section 3.2).

For each clip, the draws are, in the order of the released code: the caption, the target length, the
text window, the video window.

Clips are drawn in feature rows. Times of captions are converted with `dataset.feature_fps`. With
one row a second, a row is a second.

Legend: C clips per video, S texts, F video slots (rows), E feature width,
T = max_len - max_video_len text slots.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch

from mmpt.batch import Captions, ClipBatch, ShardKey, Split
from mmpt.config.schema import Count, DatasetConfig, Switch
from mmpt.errors import DataError
from mmpt.processors.base import ALIGNERS, ItemAligner
from mmpt.processors.sampling import Span, rows_between, text_span, video_window
from mmpt.processors.tensorise import NUM_SPECIAL, Padded, stack_clips, stack_texts
from mmpt.processors.tokenizer import special_tokens


class Clip(NamedTuple):
    """A drawn clip. The clips of a video are sorted by these fields."""

    text_start: int  # caption index
    video_start: int  # feature row
    text_end: int  # caption index, exclusive
    video_end: int  # feature row, exclusive; may lie more than F after video_start


class Aligner(ItemAligner):
    """An aligner that builds tensors of one text and one video.

    Subclasses choose which captions and which feature rows go into them.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.max_video_len = self.need_int("max_video_len")
        shortest = self.max_video_len + NUM_SPECIAL + 1
        max_len = self.need_int("max_len", shortest)
        self.max_text_len = max_len - self.max_video_len
        self.num_video_slots = config.num_video_slots
        bert_name = self.need_str("bert_name")
        self.special = special_tokens(bert_name, config.use_fast)

    def build_text_seq(
        self,
        text_feature: list[int] | Captions,
        clip_indices: Sequence[int] = (0,),
        *,
        name: str = "the text",
    ) -> Padded:
        """Returns caps int64 [T] and cmasks bool [T] of one text.

        Args:
            text_feature: word-piece ids, or captions.
            clip_indices: the captions to join, in this order; ids are taken whole.
            name: the text, for messages.
        """
        if isinstance(text_feature, Mapping):
            cap = text_feature["cap"]
            chosen = [cap[index] for index in clip_indices]
            text_feature = list(chain.from_iterable(chosen))
        caps_1T, cmasks_1T = self.build_texts([text_feature], name=name)
        return caps_1T[0], cmasks_1T[0]

    def build_texts(self, texts: Sequence[list[int]], *, name: str) -> Padded:
        """Returns caps int64 [S, T] and cmasks bool [S, T] of S lists of word-piece ids.

        Args:
            name: the texts, for messages.
        Raises:
            DataError: a word piece lies outside BERT's vocabulary.
        """
        caps, cmasks = stack_texts(texts, self.max_text_len, self.special)
        vocab_size = self.special.vocab_size
        largest = int(caps.max())
        if largest >= vocab_size:
            raise DataError(
                f"{name}: word-piece ids must be below {vocab_size}, the vocabulary of "
                f"`{self.config.bert_name}`, but {largest} is there. Tokenise the captions with "
                "the same BERT, or correct `dataset.bert_name`."
            )
        return caps, cmasks

    def build_video_seq(
        self,
        video_feature: np.ndarray,
        clips: Sequence[Span] | None = None,
        *,
        name: str = "the video",
    ) -> Padded:
        """Returns vfeats float [F, E] and vmasks bool [F] of one video.

        Args:
            video_feature: float [rows, E].
            clips: the rows to join; None means the first F rows.
            name: the video, for messages.
        Raises:
            DataError: features of another form, or not finite.
        """
        if clips is not None:
            pieces = [video_feature[start:end] for start, end in clips]
            video_feature = np.concatenate(pieces)
        num_slots = self.num_video_slots
        spans = [(0, num_slots)]
        vfeats_1FE, vmasks_1F = stack_clips(video_feature, spans, num_slots, name)
        return vfeats_1FE[0], vmasks_1F[0]

    # The names that the documented calls of the released code use.
    _build_text_seq = build_text_seq
    _build_video_seq = build_video_seq


@ALIGNERS.register
class FixedLenAligner(Aligner):
    """An aligner that draws C clips of one video.

    A text window has about T - 3 word pieces. The video window lasts from the start of its first
    caption to the end of its last one.
    """

    class Config(DatasetConfig):
        """The keys of the aligner."""

        sort_clips: Switch = True
        """Sort the clips of a video by time. Default: true, as in Norton; VideoCLIP does not."""

    config: Config
    has_clip_axis = True

    def __init__(self, config: Config, split: Split):
        super().__init__(config, split)
        key = "subsampling" if config.clip_per_video is None else "clip_per_video"
        self.num_clips = self.need_int(key)

    def __call__(
        self, video_key: Any, video_feature: Any, text_feature: Any, rng: random.Random
    ) -> ClipBatch:
        """Returns tensors with leading axis C and the video's id.

        Args:
            video_feature: float [rows, E].
            text_feature: `Captions`.
        Raises:
            DataError: no captions, no features, or features that are not finite [rows, E] floats.
        """
        name = video_name(video_key)
        cap = text_feature["cap"]
        video_len = len(video_feature)
        if not cap or not video_len:
            found = "no captions" if not cap else "no feature rows"
            raise DataError(
                f"{name}: must have captions and feature rows, but has {found}. Take it off the "
                "list."
            )

        # Draw the windows, then cut out and pad what they cover.
        clips = self.draw_clips(video_len, text_feature, rng)
        texts = []
        spans = []
        for clip in clips:
            drawn = cap[clip.text_start : clip.text_end]
            ids = list(chain.from_iterable(drawn))
            span = (clip.video_start, clip.video_end)
            texts.append(ids)
            spans.append(span)
        caps, cmasks = self.build_texts(texts, name=name)
        vfeats, vmasks = stack_clips(video_feature, spans, self.num_video_slots, name)
        # One tensor of C numbers for each field of the clips.
        fields_4C = torch.tensor(clips).T.contiguous()
        text_start, video_start, text_end, video_end = fields_4C
        return ClipBatch(
            caps=caps,
            cmasks=cmasks,
            vfeats=vfeats,
            vmasks=vmasks,
            text_start=text_start,
            video_start=video_start,
            text_end=text_end,
            video_end=video_end,
            video_id=video_id_of(video_key),
        )

    def draw_clips(
        self, video_len: int, captions: Captions, rng: random.Random
    ) -> list[Clip]:
        """Draws C clips of a video of `video_len` feature rows."""
        starts = captions["start"]
        ends = captions["end"]
        sizes = [len(ids) for ids in captions["cap"]]
        num_captions = len(sizes)
        clips = []
        for _ in range(self.num_clips):
            # Grow the text window around its caption.
            centre = self.draw_caption(num_captions, rng)
            target = self.draw_text_len(rng)
            first, last, _ = text_span(sizes, starts, ends, centre, target, rng)
            # Choose the video window from the time of the text.
            low_s = starts[first]
            high_s = ends[last - 1]
            start, end = self.video_span(video_len, low_s, high_s, rng)
            clip = Clip(first, start, last, end)
            clips.append(clip)
        if self.config.sort_clips:
            # As Norton does; VideoCLIP keeps the order of the draws.
            clips.sort()
        return clips

    def draw_caption(self, num_captions: int, rng: random.Random) -> int:
        """Draws the caption around which a text window grows."""
        return rng.randint(0, num_captions - 1)

    def draw_text_len(self, rng: random.Random) -> int:
        """Returns the target length of a text window, in word pieces."""
        return self.max_text_len - NUM_SPECIAL

    def video_span(
        self, video_len: int, low_s: float, high_s: float, rng: random.Random
    ) -> Span:
        """Returns the feature rows of a clip for text from `low_s` to `high_s` seconds."""
        low, high = rows_between(low_s, high_s, self.config.feature_fps)
        end = min(high, video_len)
        start = min(low, end)
        # Text that ends before it starts, or before the video starts, makes an empty clip. Negative
        # rows are clamped, because NumPy would count them from the end of the features.
        return max(start, 0), max(end, 0)


@ALIGNERS.register
class VariedLenAligner(FixedLenAligner):
    """A `FixedLenAligner` that draws the target length of every text window.

    The length is uniform from `sampled_min_len` to `sampled_max_len` word pieces.
    """

    class Config(FixedLenAligner.Config):
        """The keys of the aligner."""

        sampled_min_len: Count | None = None
        """Smallest target length of a text window, in word pieces."""
        sampled_max_len: Count | None = None
        """Largest target length of a text window, in word pieces."""

    config: Config

    def __init__(self, config: Config, split: Split):
        super().__init__(config, split)
        self.sampled_min_len = self.need_int("sampled_min_len")
        self.sampled_max_len = self.need_int("sampled_max_len", self.sampled_min_len)

    def draw_text_len(self, rng: random.Random) -> int:
        """Draws the target length. As in the release, it may exceed the T - 3 pieces that fit."""
        return rng.randint(self.sampled_min_len, self.sampled_max_len)


@ALIGNERS.register
class StartClipAligner(VariedLenAligner):
    """A `VariedLenAligner` whose text windows begin with the first caption.

    They have about T - 3 word pieces. Caption and length are drawn, as released, but not used.
    """

    def draw_caption(self, num_captions: int, rng: random.Random) -> int:
        """Draws a caption, and returns 0."""
        super().draw_caption(num_captions, rng)
        return 0

    def draw_text_len(self, rng: random.Random) -> int:
        """Draws a length, and returns T - 3."""
        super().draw_text_len(rng)
        return self.max_text_len - NUM_SPECIAL


@ALIGNERS.register
class OverlappedAligner(VariedLenAligner):
    """A `VariedLenAligner` whose video window grows around a random row of the text window."""

    class Config(VariedLenAligner.Config):
        """The keys of the aligner."""

        sampled_video_min_len: Count | None = None
        """Smallest length of a video window, in seconds."""
        sampled_video_max_len: Count | None = None
        """Largest length of a video window, in seconds."""

    config: Config

    def __init__(self, config: Config, split: Split):
        super().__init__(config, split)
        shortest = self.need_int("sampled_video_min_len")
        self.sampled_video_min_len = shortest
        self.sampled_video_max_len = self.need_int("sampled_video_max_len", shortest)
        self.min_rows = config.num_rows(shortest)
        self.max_rows = config.num_rows(self.sampled_video_max_len)

    def video_span(
        self, video_len: int, low_s: float, high_s: float, rng: random.Random
    ) -> Span:
        """Draws the centre and the length of the video window, then the window."""
        low, high = rows_between(low_s, high_s, self.config.feature_fps)
        centre = rng.randint(low, high) if low < high else (low + high) // 2
        centre = max(0, min(centre, video_len - 1))
        max_len = rng.randint(self.min_rows, self.max_rows)
        return video_window(video_len, max_len, centre, rng)


def video_id_of(key: Any) -> Any:
    """Returns the video id in a key: the key itself if it is text, else its first element."""
    if isinstance(key, str):
        return key
    return key[0]


def video_name(key: Any) -> str:
    """Returns the name of a key's video for messages, with its place if it is packed."""
    name = f"video {video_id_of(key)}"
    if isinstance(key, ShardKey):
        name += f" (row {key.row} of shard {key.shard})"
    return name
