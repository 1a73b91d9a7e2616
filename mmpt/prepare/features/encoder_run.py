"""One encoder's part of an extraction: batches of clips, feature files and a report.

Batches contain clips of several videos, so that they are full even if videos are short. Each row of
a batch is appended to the rows of its video. A video whose rows are complete is written to its
feature file.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mmpt.media.clip_encoder import (
    ClipEncoder,
    EncoderError,
    PendingFeatures,
)
from mmpt.media.video_list import VideoJob
from mmpt.prepare.features.feature_files import add_notes, is_finished, read_notes
from mmpt.shards.feature_rows import finish_features
from mmpt.utils.io import atomic_write, remove_leftovers
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


@dataclass
class ExtractionReport:
    """The result of a run."""

    num_videos: int
    written: list[str] = field(default_factory=list)
    """Ids of the videos whose features this run has written."""
    num_present: int = 0
    """Number of videos that had features before this run."""
    seconds: float = 0
    """Seconds of video written."""
    failed: dict[str, str] = field(default_factory=dict)
    """Id -> why there are no features."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Id -> problems of a video that could be read nevertheless, in this or an earlier run."""

    @property
    def num_done(self) -> int:
        """Number of videos that have features or have failed."""
        return len(self.written) + self.num_present + len(self.failed)


@dataclass(eq=False)
class VideoRows:
    """The features of a video, from its first clip to its feature file."""

    job: VideoJob
    num_clips: int = 0  # decoded so far
    notes: list[str] | None = None  # None: there may be more clips
    has_failed: bool = False  # the encoder cannot use one of its clips
    rows: bytearray = field(default_factory=bytearray)
    """Its features so far, float32 [clips, D], in one growing block of memory. An array per row
    would lie on the heap between the large arrays of the network, and keep the allocator from
    reusing their memory. With a small network this cost 18 MB per second of video.
    """


class _Clip(NamedTuple):
    """The prepared frames of one feature row."""

    video: VideoRows
    pixels: torch.Tensor


class EncoderRun:
    """Encodes clips with one encoder and writes its feature files.

    Args:
        jobs: the videos, and where to write their features.
        encoder: runs the network.
        l2_normalize: divide each row by its L2 norm.
        dtype: dtype of the feature files.
    """

    def __init__(
        self,
        jobs: Sequence[VideoJob],
        encoder: ClipEncoder,
        *,
        l2_normalize: bool = True,
        dtype: str = "float16",
    ):
        self.jobs = jobs
        self.encoder = encoder
        self.report = ExtractionReport(len(jobs))
        self._l2_normalize = l2_normalize
        self._dtype = np.dtype(dtype)
        self._clips: list[_Clip] = []  # not in a batch yet
        self._running: deque[tuple[PendingFeatures, list[VideoRows]]] = deque()

    def prepare_folders(self) -> None:
        """Removes temporary files of killed runs, and reads the notes of earlier runs."""
        jobs_by_folder: dict[Path, list[VideoJob]] = defaultdict(list)
        for job in self.jobs:
            jobs_by_folder[job.feature.parent].append(job)
        for folder, jobs in jobs_by_folder.items():
            names = {job.feature.name for job in jobs}
            remove_leftovers(folder, names)
            old_notes = read_notes(folder)
            for job in jobs:
                if notes := old_notes.get(job.video_id):
                    self.report.notes[job.video_id] = notes

    def is_finished(self, job: VideoJob) -> bool:
        """Returns whether the features of a video exist already."""
        return is_finished(job.feature, self._dtype, self.encoder.width)

    def add(self, video: VideoRows, pixels: torch.Tensor) -> None:
        """Adds the next clip of a video, as `ClipEncoder.prepare` returns it."""
        video.num_clips += 1
        self._clips.append(_Clip(video, pixels))

    def encode_batches(self, *, at_end: bool = False) -> None:
        """Encodes the clips that fill batches.

        Args:
            at_end: there are no more clips. Also encode a partial batch, and wait for all features.
        Raises:
            DataError: features cannot be written (full disk, no permission), or have a wrong
                shape. Finished ones stay.
        """
        size = self.encoder.batch_size
        while len(self._clips) >= size or (at_end and self._clips):
            batch = self._clips[:size]
            del self._clips[:size]
            # Start this batch before waiting for the one before it.
            self._start(batch)
            while len(self._running) > 1:
                self._store_rows(*self._running.popleft())
        while at_end and self._running:
            self._store_rows(*self._running.popleft())

    def _start(self, batch: list[_Clip]) -> None:
        """Starts to encode a batch. If its encoder raises an exception, encodes clip by clip.

        Only the videos whose own clips cannot be encoded fail.
        """
        batch = [clip for clip in batch if not clip.video.has_failed]
        if not batch:
            return
        try:
            pending = self.encoder.start([clip.pixels for clip in batch])
        except EncoderError as err:
            if len(batch) == 1:
                self.give_up(batch[0].video, str(err))
                return
            for clip in batch:
                self._start([clip])
            return
        self._running.append((pending, [clip.video for clip in batch]))

    def end(self, video: VideoRows, notes: list[str]) -> None:
        """Ends a video after its last clip.

        Args:
            notes: its problems.
        """
        video.notes = notes
        self._write_if_complete(video)

    def give_up(self, video: VideoRows, reason: str) -> None:
        """Reports a video that the encoder cannot use. The rest of its clips is ignored."""
        if video.has_failed:
            return
        video.has_failed = True
        video.rows.clear()
        self.fail(video.job, reason)
        logger.warning("%s: %s; left out", video.job.video, reason)

    def fail(self, job: VideoJob, reason: str) -> None:
        """Reports a video without features."""
        self.report.failed[job.video_id] = reason
        # The notes are about features that an earlier run wrote.
        self.report.notes.pop(job.video_id, None)

    def _store_rows(self, pending: PendingFeatures, videos: list[VideoRows]) -> None:
        """Appends the features of a batch to the rows of their videos."""
        for video, row in zip(videos, pending.result(), strict=True):
            if not video.has_failed:
                video.rows += row.tobytes()
                self._write_if_complete(video)

    def _write_if_complete(self, video: VideoRows) -> None:
        """Writes the feature file of a video if all its clips are decoded and encoded."""
        width = self.encoder.width
        num_rows = len(video.rows) // (4 * width)
        if video.has_failed or video.notes is None or num_rows < video.num_clips:
            return
        job = video.job
        rows_ND = np.frombuffer(video.rows, np.float32).reshape(num_rows, width)
        features = finish_features(
            rows_ND, l2_normalize=self._l2_normalize, dtype=self._dtype
        )
        if not np.isfinite(features).all():
            reason = f"its features are not finite; {self._remedy(rows_ND)}"
            self.fail(job, reason)
            logger.warning("%s: %s; left out", job.video, reason)
            return
        # Notes are written before the features: a rerun skips this video, but reports its notes.
        self._replace_notes(job, video.notes)
        with atomic_write(job.feature, "wb") as file:
            np.save(file, features)
        self.report.written.append(job.video_id)
        self.report.seconds += len(features) / self.encoder.sampling.fps

    def _remedy(self, rows_ND: np.ndarray) -> str:
        """Returns what to do about features that are not finite.

        Args:
            rows_ND: the features as the encoder has returned them.
        """
        if np.isfinite(rows_ND).all():  # float16 ends at 65,504
            return "try `--half_precision 0`"
        if self.encoder.dtype != torch.float32:
            return "try `--dtype fp32`"
        return "check the encoder and its weights"

    def _replace_notes(self, job: VideoJob, notes: list[str]) -> None:
        """Records the problems of a video, in place of those that an earlier run recorded."""
        known = self.report.notes
        if notes != known.pop(job.video_id, []):
            add_notes(job.feature.parent, job.video_id, notes)
        if notes:
            known[job.video_id] = notes
