"""Extracts features from videos. Threads decode, and the main thread runs the network.

Batches contain clips of several videos, so that they are full even if videos are short. The work is
divided like this:

- A task of a thread decodes the next few one-second clips of one video. FFmpeg releases the
  interpreter's lock meanwhile.
- The main thread collects the clips of finished tasks, starts the next task of the same video, and
  runs the network when it has a full batch. While a GPU computes one batch, the next is collected.
- Each row of a batch is appended to the rows of its video. A video whose rows are complete is
  written to its feature file.

Memory is bounded by the batch size and the number of threads, not by the length of videos: about
(5 batches + 4 x threads) x 4.5 MB, plus 2 KB of features per second of the videos in progress. A
broken video is reported with a reason and never stops the others.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import KW_ONLY, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from mmpt.batch import FEATURE_DIM
from mmpt.media.video_list import VideoJob
from mmpt.media.video_reader import VideoError, VideoFile
from mmpt.prepare.features.clip_encoder import ClipEncoder, PendingFeatures, finish_features
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
    seconds: int = 0
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
    clips: Iterator[np.ndarray] = field(default_factory=lambda: iter(()))  # the remaining ones
    num_clips: int = 0  # decoded so far
    notes: list[str] | None = None  # its problems; None before its last clip is decoded
    rows: bytearray = field(default_factory=bytearray)
    """Its features so far, float32 [clips, 512], in one growing block of memory. An array per row
    would lie on the heap between the large arrays of the network, and keep the allocator from
    reusing their memory. With a small network this cost 18 MB per second of video.
    """


@dataclass
class Extraction:
    """Extracts the features of the videos that have none yet.

    Args:
        jobs: the videos.
        encoder: the network.
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
        self.report = ExtractionReport(num_videos=len(self.jobs))
        self._num_open = max(1, min(self.num_threads, len(self.jobs)))
        # Together, the threads decode one batch while another one is in the network.
        self._clips_per_task = max(2, -(-self.encoder.batch_size // self._num_open))

    def run(self) -> ExtractionReport:
        """Extracts the features. `report` also has the result if this is interrupted (Ctrl-C).

        Call it within `extracting`, which keeps other processes from the same videos.

        Raises:
            DataError: features cannot be written (full disk, no permission). Finished ones stay.
        """
        self._prepare_folders()
        waiting: tuple[PendingFeatures, list[_VideoProgress]] | None = None
        with ThreadPoolExecutor(self._num_open) as pool:
            for videos, clips in self._batches(pool):
                # Start this batch before waiting for the one before it.
                started = self.encoder.start(clips), videos
                if waiting is not None:
                    self._store_rows(*waiting)
                waiting = started
            if waiting is not None:
                self._store_rows(*waiting)
        return self.report

    def _prepare_folders(self) -> None:
        """Removes temporary files of killed runs, and reads the notes of earlier runs."""
        files: dict[Path, dict[str, str]] = {}  # folder -> name of the feature file -> id
        for job in self.jobs:
            files.setdefault(job.feature.parent, {})[job.feature.name] = job.video_id
        for folder, names in files.items():
            remove_leftovers(folder, names)
            ids = set(names.values())
            for video_id, notes in read_notes(folder).items():
                if video_id in ids:
                    self.report.notes[video_id] = notes

    def _batches(
        self, pool: ThreadPoolExecutor
    ) -> Iterator[tuple[list[_VideoProgress], list[np.ndarray]]]:
        """Yields full batches, then a partial one: the clips, and the video of each clip."""
        videos: list[_VideoProgress] = []  # of the clips that are not in a batch yet
        clips: list[np.ndarray] = []
        begin = last_log = time.monotonic()
        size = self.encoder.batch_size
        unopened = deque(self.jobs)
        tasks: dict[Future[list[np.ndarray]], _VideoProgress] = {}
        while unopened or tasks:
            # Give every thread a task before the network runs.
            while unopened and len(tasks) < self._num_open:
                video = _VideoProgress(unopened.popleft())
                tasks[pool.submit(self._decode, video)] = video
            while len(clips) >= size:
                yield videos[:size], clips[:size]
                del videos[:size], clips[:size]
            # Collect the clips of finished tasks. A video that has more gets another task.
            for task in wait(tasks, return_when=FIRST_COMPLETED).done:
                video = tasks.pop(task)
                try:
                    decoded = task.result()
                except VideoError as err:
                    self._fail(video.job, str(err))
                    continue
                video.num_clips += len(decoded)
                videos += [video] * len(decoded)
                clips += decoded
                if len(decoded) == self._clips_per_task:
                    tasks[pool.submit(self._decode, video)] = video
                elif video.file is None:
                    self.report.num_present += 1
                else:
                    video.notes = video.file.notes
                    self._write_if_complete(video)
            now = time.monotonic()
            if now - last_log > _INTERVAL_S:
                last_log = now
                self._log_progress(now - begin)
        for first in range(0, len(clips), size):
            yield videos[first : first + size], clips[first : first + size]

    def _decode(self, video: _VideoProgress) -> list[np.ndarray]:
        """Returns the next clips of a video. Runs in a thread.

        There are fewer clips than `_clips_per_task` at the end of the video, and none if its
        features exist already.
        """
        if video.file is None:
            if is_finished(video.job.feature, np.dtype(self.dtype)):
                return []
            num_threads = max(1, self.num_threads // self._num_open)
            video.file = VideoFile(video.job.video, hflip=self.hflip, num_threads=num_threads)
            video.clips = video.file.clips()
        return list(islice(video.clips, self._clips_per_task))

    def _fail(self, job: VideoJob, reason: str) -> None:
        """Reports a video without features."""
        self.report.failed[job.video_id] = reason
        self.report.notes.pop(job.video_id, None)  # they are about features of an earlier run
        logger.warning("%s: %s; left out", job.video, reason)

    def _store_rows(self, pending: PendingFeatures, videos: list[_VideoProgress]) -> None:
        """Appends the features of a batch to the rows of their videos."""
        for video, row in zip(videos, pending.result(), strict=True):
            video.rows += row.tobytes()
            self._write_if_complete(video)

    def _write_if_complete(self, video: _VideoProgress) -> None:
        """Writes the feature file of a video if all its clips are decoded and encoded."""
        num_rows = len(video.rows) // (4 * FEATURE_DIM)
        if video.notes is None or num_rows < video.num_clips:
            return
        rows_ND = np.frombuffer(video.rows, np.float32).reshape(num_rows, FEATURE_DIM)
        features = finish_features(
            rows_ND, l2_normalize=self.l2_normalize, dtype=np.dtype(self.dtype)
        )
        job, notes = video.job, self.report.notes
        if not np.isfinite(features).all():
            self._fail(job, "its features are not finite; try `--dtype fp32`")
            return
        if video.notes:
            logger.warning("%s: %s", job.video, "; ".join(video.notes))
        # Notes are written before the features: a rerun skips this video, but reports its notes. A
        # video that was replaced by an intact one loses its notes.
        if video.notes != notes.pop(job.video_id, []):
            add_notes(job.feature.parent, job.video_id, video.notes)
        if video.notes:
            notes[job.video_id] = video.notes
        with atomic_write(job.feature, "wb") as file:
            np.save(file, features)
        self.report.written.append(job.video_id)
        self.report.seconds += len(features)

    def _log_progress(self, took_s: float) -> None:
        """Logs counts, speed and the time left, which depends on the videos of this run only."""
        report = self.report
        num_new = len(report.written) + len(report.failed)
        num_done = num_new + report.num_present
        left_s = (report.num_videos - num_done) * took_s / max(num_new, 1)
        logger.info(
            "%d of %d videos (%.0f%%), %.1f s of video/s, %d failed, %s left",
            num_done,
            report.num_videos,
            100 * num_done / report.num_videos,
            report.seconds / took_s,
            len(report.failed),
            format_seconds(left_s) if num_new else "unknown time",
        )
