"""Extracts features from videos. Threads decode, and the main thread runs the network.

Batches contain clips of several videos, so that they are full even if videos are short. The work is
divided like this:

- A task of a thread decodes and prepares the next few clips of one video. A clip has the frames of
  one feature row: with S3D, a second. FFmpeg releases the interpreter's lock meanwhile.
- The main thread collects the clips of finished tasks, starts the next task of the same video, and
  runs the network when it has a full batch. While a GPU computes one batch, the next is collected.
- Each row of a batch is appended to the rows of its video. A video whose rows are complete is
  written to its feature file.

Memory is bounded by the batch size and the number of threads, not by the length of videos. With S3D
it is about (5 batches + 4 x threads) x 4.5 MB, plus 2 KB of features per second of the videos in
progress. A broken video is reported with a reason and never stops the others.
"""

import math
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import KW_ONLY, dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mmpt.media.video_list import VideoJob
from mmpt.media.video_reader import VideoError, VideoFile
from mmpt.prepare.features.clip_encoder import (
    ClipEncoder,
    PendingFeatures,
    finish_features,
)
from mmpt.prepare.features.feature_files import add_notes, is_finished, read_notes
from mmpt.utils.io import atomic_write, remove_leftovers
from mmpt.utils.log import format_seconds, get_logger

logger = get_logger(__name__)

_INTERVAL_S = 10.0  # between two progress lines


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


@dataclass(eq=False)
class _VideoProgress:
    """A video from its first clip to its feature file."""

    job: VideoJob
    file: VideoFile | None = None  # None: not opened, or its features exist already
    # The clips that are not decoded yet.
    clips: Iterator[np.ndarray] = field(init=False)
    num_clips: int = 0  # decoded so far
    is_decoded: bool = False  # there are no more clips
    rows: bytearray = field(default_factory=bytearray)
    """Its features so far, float32 [clips, D], in one growing block of memory. An array per row
    would lie on the heap between the large arrays of the network, and keep the allocator from
    reusing their memory. With a small network this cost 18 MB per second of video.
    """


class _Clip(NamedTuple):
    """The prepared frames of one feature row."""

    video: _VideoProgress
    pixels: torch.Tensor


@dataclass
class Extraction:
    """Extracts the features of the videos that have none yet.

    Args:
        jobs: the videos.
        encoder: runs the network.
        num_threads: number of videos that are decoded at the same time. If there are fewer videos,
            each gets several decoder threads. This depends on the number of `jobs`, finished or
            not, so that a rerun decodes in the same way.
        hflip: mirror the frames horizontally.
        l2_normalize: divide each row by its L2 norm.
        dtype: dtype of the feature files.
    """

    jobs: Sequence[VideoJob]
    encoder: ClipEncoder
    _: KW_ONLY
    num_threads: int = 4
    hflip: bool = False
    l2_normalize: bool = True
    dtype: str = "float16"

    def __post_init__(self) -> None:
        num_videos = len(self.jobs)
        self.report = ExtractionReport(num_videos)
        self._dtype = np.dtype(self.dtype)
        # Number of videos that are decoded at the same time.
        self._num_open = max(1, min(self.num_threads, num_videos))
        # Together, the threads decode one batch while another one is in the network.
        clips_per_thread = math.ceil(self.encoder.batch_size / self._num_open)
        self._clips_per_task = max(2, clips_per_thread)

    def run(self) -> ExtractionReport:
        """Extracts the features. `report` also has the result if this is interrupted (Ctrl-C).

        Call it within `extracting`, which keeps other processes from the same videos.

        Raises:
            DataError: features cannot be written (full disk, no permission). Finished ones stay.
        """
        self._prepare_folders()
        running: deque[tuple[PendingFeatures, list[_VideoProgress]]] = deque()
        with ThreadPoolExecutor(self._num_open) as pool:
            for batch in self._batches(pool):
                # Start this batch before waiting for the one before it.
                pending = self.encoder.start([clip.pixels for clip in batch])
                videos = [clip.video for clip in batch]
                running.append((pending, videos))
                if len(running) > 1:
                    self._store_rows(*running.popleft())
            for pending, videos in running:
                self._store_rows(pending, videos)
        return self.report

    def _prepare_folders(self) -> None:
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

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[list[_Clip]]:
        """Yields full batches of clips, then a partial one."""
        size = self.encoder.batch_size
        begin = last_log = time.monotonic()
        clips: list[_Clip] = []  # not in a batch yet
        unopened = deque(self.jobs)
        tasks: dict[Future[list[torch.Tensor]], _VideoProgress] = {}
        while unopened or tasks:
            # Give every thread a task before the network runs.
            while unopened and len(tasks) < self._num_open:
                video = _VideoProgress(unopened.popleft())
                task = pool.submit(self._decode, video)
                tasks[task] = video
            while len(clips) >= size:
                yield clips[:size]
                del clips[:size]
            # Collect the clips of finished tasks. A video that has more gets another task.
            finished = wait(tasks, return_when=FIRST_COMPLETED).done
            for task in finished:
                video = tasks.pop(task)
                try:
                    decoded = task.result()
                except VideoError as err:
                    self._fail(video.job, str(err))
                    continue
                clips += [_Clip(video, pixels) for pixels in decoded]
                self._count_clips(video, len(decoded))
                if not video.is_decoded:
                    task = pool.submit(self._decode, video)
                    tasks[task] = video
            now = time.monotonic()
            if now - last_log > _INTERVAL_S:
                last_log = now
                self._log_progress(now - begin)
        while clips:
            yield clips[:size]
            del clips[:size]

    def _count_clips(self, video: _VideoProgress, num_new: int) -> None:
        """Counts the clips that a task has decoded, and ends the video after the last one."""
        video.num_clips += num_new
        if num_new == self._clips_per_task:
            return
        if video.file is None:
            self.report.num_present += 1
        video.is_decoded = True
        self._write_if_complete(video)

    def _decode(self, video: _VideoProgress) -> list[torch.Tensor]:
        """Returns the next clips of a video, prepared for the encoder. Runs in a thread.

        There are fewer clips than `_clips_per_task` at the end of the video, and none if its
        features exist already.
        """
        if video.file is None:
            job = video.job
            if is_finished(job.feature, self._dtype, self.encoder.width):
                return []
            num_threads = max(1, self.num_threads // self._num_open)
            video.file = VideoFile(
                job.video,
                hflip=self.hflip,
                num_threads=num_threads,
                sampling=self.encoder.sampling,
            )
            video.clips = video.file.clips()
        next_clips = islice(video.clips, self._clips_per_task)
        return [self.encoder.encoder.prepare(clip) for clip in next_clips]

    def _fail(self, job: VideoJob, reason: str) -> None:
        """Reports a video without features."""
        self.report.failed[job.video_id] = reason
        # They are about features of an earlier run.
        self.report.notes.pop(job.video_id, None)
        logger.warning("%s: %s; left out", job.video, reason)

    def _store_rows(
        self, pending: PendingFeatures, videos: list[_VideoProgress]
    ) -> None:
        """Appends the features of a batch to the rows of their videos."""
        for video, row in zip(videos, pending.result(), strict=True):
            video.rows += row.tobytes()
            self._write_if_complete(video)

    def _write_if_complete(self, video: _VideoProgress) -> None:
        """Writes the feature file of a video if all its clips are decoded and encoded."""
        width = self.encoder.width
        num_rows = len(video.rows) // (4 * width)
        if video.file is None or not video.is_decoded:
            return
        if num_rows < video.num_clips:
            return
        job = video.job
        rows_ND = np.frombuffer(video.rows, np.float32).reshape(num_rows, width)
        features = finish_features(
            rows_ND, l2_normalize=self.l2_normalize, dtype=self._dtype
        )
        if not np.isfinite(features).all():
            self._fail(job, "its features are not finite; try `--dtype fp32`")
            return
        # Notes are written before the features: a rerun skips this video, but reports its notes.
        self._replace_notes(job, video.file.notes)
        with atomic_write(job.feature, "wb") as file:
            np.save(file, features)
        self.report.written.append(job.video_id)
        self.report.seconds += len(features) / self.encoder.sampling.fps

    def _replace_notes(self, job: VideoJob, notes: list[str]) -> None:
        """Records the problems of a video. One that was replaced by an intact video loses them."""
        known = self.report.notes
        if notes != known.pop(job.video_id, []):
            add_notes(job.feature.parent, job.video_id, notes)
        if notes:
            joined = "; ".join(notes)
            logger.warning("%s: %s", job.video, joined)
            known[job.video_id] = notes

    def _log_progress(self, took_s: float) -> None:
        """Logs counts, speed and the time left, which depends on the videos of this run only."""
        report = self.report
        num_failed = len(report.failed)
        num_new = len(report.written) + num_failed
        num_done = num_new + report.num_present
        num_left = report.num_videos - num_done
        time_left = "unknown time"
        if num_new:
            time_left = format_seconds(num_left * took_s / num_new)
        logger.info(
            "%d of %d videos (%.0f%%), %.1f s of video/s, %d failed, %s left",
            num_done,
            report.num_videos,
            100 * num_done / report.num_videos,
            report.seconds / took_s,
            num_failed,
            time_left,
        )
