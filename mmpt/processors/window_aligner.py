"""Cuts whole videos into sliding windows, for benchmarks that read every second of a video.

Windows are cut in feature rows, but benchmarks score seconds. With one row a second, both are
the same. Otherwise, the values of all rows that touch a second are averaged.

Legend: W windows, F video slots (rows), E feature width, R rows and L seconds of a video, K values
per row.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import Count, DatasetConfig
from mmpt.errors import ConfigError, DataError
from mmpt.processors.aligner import Aligner
from mmpt.processors.sampling import Span, rows_between
from mmpt.processors.tensorise import stack_clips


def window_spans(num_rows: int, stride: int, width: int) -> list[Span]:
    """Returns windows of `width` rows, one every `stride`, up to the first that reaches the end.

    The last one may be shorter. A video of no rows has no windows.
    """
    spans: list[Span] = []
    for start in range(0, num_rows, stride):
        end = min(start + width, num_rows)
        spans.append((start, end))
        if end == num_rows:
            break
    return spans


def average_windows(
    windows: Sequence[np.ndarray] | np.ndarray, spans: list[Span]
) -> np.ndarray:
    """Returns the mean over the windows that cover each row, as float32 [R, K].

    Args:
        windows: the values of each window, float [rows, K], or of all windows, [W, F, K]. Rows
            after the first `end - start` ones are padding, and are ignored.
        spans: start and end of each window, as from `window_spans`. Together they cover every row.
    """
    _, num_rows = spans[-1]
    num_values = windows[0].shape[1]
    # Add up the values of every row, and count its windows.
    total = np.zeros((num_rows, num_values), dtype=np.float32)
    count = np.zeros((num_rows, 1), dtype=np.float32)
    for values_FK, (start, end) in zip(windows, spans, strict=True):
        length = end - start
        total[start:end] += values_FK[:length]
        count[start:end] += 1
    assert count.all(), "windows leave rows out"
    return total / count


def num_seconds(num_rows: int, fps: float) -> int:
    """Returns the length of a video in seconds, rounded up.

    Args:
        num_rows: R.
        fps: feature rows per second.
    """
    return math.ceil(round(num_rows / fps, ndigits=6))


def average_seconds(values_RK: np.ndarray, fps: float) -> np.ndarray:
    """Returns the mean over the rows that touch each second, [L, K] in the dtype of the values.

    With one row a second, it returns the values unchanged.

    Args:
        fps: feature rows per second.
    """
    if fps == 1:
        return values_RK
    num_rows = len(values_RK)
    means = []
    for second in range(num_seconds(num_rows, fps)):
        first, end = rows_between(second, second + 1, fps)
        first = min(first, num_rows - 1)  # rounding may give the row after the last
        means.append(values_RK[first:end].mean(axis=0, dtype=values_RK.dtype))
    return np.stack(means)


def check_not_empty(video_feature: np.ndarray, name: str) -> None:
    """Raises DataError if the video has no rows. `name` is the video, for the message."""
    if not len(video_feature):
        raise DataError(
            f"{name}: a video must be at least a second long, but its features have no rows. "
            "Extract it again."
        )


class WindowAligner(Aligner):
    """An aligner that cuts a video into windows.

    A window lasts `dataset.sliding_window_size` seconds. A new one starts every
    `dataset.sliding_window` seconds.
    """

    class Config(DatasetConfig):
        """The keys of the aligner. Predictors that put windows together read them, too."""

        sliding_window: Count | None = None
        """Stride of evaluation windows, in seconds."""
        sliding_window_size: Count | None = None
        """Width of evaluation windows, in seconds."""

        def spans(self, num_rows: int) -> list[Span]:
            """Returns the windows of a video, in feature rows."""
            assert self.sliding_window is not None, "checked by the aligner"
            assert self.sliding_window_size is not None, "checked by the aligner"
            return window_spans(
                num_rows,
                self.num_rows(self.sliding_window),
                self.num_rows(self.sliding_window_size),
            )

    config: Config
    fills_batch = True

    def __init__(self, config: Config, split: Split):
        super().__init__(config, split)
        self.stride = self.need_int("sliding_window")
        self.width = self.need_int("sliding_window_size")
        if not self.stride <= self.width <= self.max_video_len:
            problem = (
                "`dataset.sliding_window` <= `sliding_window_size` <= `max_video_len` must hold, "
                "so that windows cover every second and fit, but they are "
                f"{self.stride}, {self.width} and {self.max_video_len}."
            )
            raise ConfigError("dataset", [problem])

    def build_windows(
        self, video_feature: np.ndarray, *, name: str, spans: list[Span] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, list[Span]]:
        """Returns vfeats float [W, F, E], vmasks bool [W, F] and the rows of the windows.

        Args:
            spans: the windows. None: all windows of the video, from `window_spans`.
        Raises:
            DataError: features that are not finite [rows, width] floats, or no rows.
        """
        check_not_empty(video_feature, name)
        if spans is None:
            spans = self.config.spans(len(video_feature))
        vfeats, vmasks = stack_clips(video_feature, spans, self.num_video_slots, name)
        return vfeats, vmasks, spans

    def build_item(
        self,
        video_id: str,
        video_feature: np.ndarray,
        texts: Sequence[list[int]],
        *,
        name: str,
        spans: list[Span] | None = None,
    ) -> tuple[ClipBatch, list[Span]]:
        """Returns a whole video with its texts, and the rows of its windows.

        Args:
            texts: word-piece ids of S texts.
            name: the video, for messages.
            spans: the windows. None: all windows of the video, from `window_spans`.
        Returns:
            caps and cmasks [S, T], vfeats [W, F, E], vmasks [W, F] and video_id; W spans.
        """
        vfeats, vmasks, spans = self.build_windows(
            video_feature, name=name, spans=spans
        )
        caps, cmasks = self.build_texts(texts, name=name)
        batch = ClipBatch(caps=caps, cmasks=cmasks, vfeats=vfeats, vmasks=vmasks)
        batch["video_id"] = video_id
        return batch, spans
