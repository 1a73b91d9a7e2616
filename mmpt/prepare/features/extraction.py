"""Videos to feature files: threads decode, the main thread runs the network on batches that cross
video borders.

Each thread decodes a few one-second clips of a video (FFmpeg works without the interpreter's lock).
The main thread collects them and gives the thread its next task, so memory is bounded by the batch
size and the number of threads, not by a video's length: about (5 batches + 4 x threads) x 4.5 MB,
and 2 KB of features per second of the videos in progress. While a GPU computes a batch, the next
one is collected. A broken video ends with a reason in the report and never stops the others.
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
from mmpt.prepare.features.clip_encoder import ClipEncoder, Pending, finish_features
from mmpt.prepare.features.feature_files import add_notes, is_finished, read_notes
from mmpt.utils.io import atomic_write, remove_leftovers
from mmpt.utils.log import format_seconds, get_logger

logger = get_logger(__name__)

_INTERVAL_S = 10.0  # between two lines of progress


@dataclass
class ExtractionReport:
    """What became of every video of a run."""

    num_videos: int
    written: list[str] = field(default_factory=list)
    num_present: int = 0
    """Videos whose features were there already."""
    seconds: int = 0
    """Seconds of video written."""
    failed: dict[str, str] = field(default_factory=dict)
    """By id: why there are no features."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """By id: what was wrong with a video that could be read nevertheless, in this or an earlier
    run.
    """


@dataclass(eq=False)
class _Work:
    """A video between its first clip and its feature file."""

    job: VideoJob
    video: VideoFile | None = None  # None: not opened, or its features are there already
    clips: Iterator[np.ndarray] = field(default_factory=lambda: iter(()))
    num_clips: int = 0
    notes: list[str] | None = None  # what was wrong with it; None before its end
    rows: bytearray = field(default_factory=bytearray)
    """Its features so far, float32 [clips, 512], in one growing piece of memory. An array for each
    would lie between the network's large ones and keep the allocator from joining the holes that
    those leave: with a small network that cost 18 MB for every second of video.
    """


@dataclass
class Extraction:
    """Extracts the features of `jobs` that are not there yet.

    Attributes:
        encoder: the network.
        num_threads: videos decoded at the same time. If there are fewer videos, each gets several
            decoder threads (by the number of `jobs`, finished or not: a rerun shall decode alike).
        hflip: mirror the pictures.
        l2_normalize: divide each row by its L2 norm.
        dtype: of the feature files.
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
        # Clips of a task: the threads decode one batch while another one is prepared.
        self._clips_per_task = max(2, -(-self.encoder.batch_size // self._num_open))

    def run(self) -> ExtractionReport:
        """Does the work. The report is also in `report` if this ends early (Ctrl-C).

        Call it in `extracting`, which keeps other processes out of this part of the videos.

        Raises:
            DataError: features cannot be written (disk full, no rights); finished ones stay.
        """
        files: dict[Path, dict[str, str]] = {}  # folder -> name of the feature file -> id
        for job in self.jobs:
            files.setdefault(job.feature.parent, {})[job.feature.name] = job.video_id
        for folder, names in files.items():
            remove_leftovers(folder, names)
            notes, ids = read_notes(folder), set(names.values())
            self.report.notes |= {name: notes[name] for name in notes if name in ids}
        waiting: tuple[Pending, list[_Work]] | None = None
        with ThreadPoolExecutor(self._num_open) as pool:
            for works, clips in self._batches(pool):
                started = self.encoder.start(clips), works
                if waiting is not None:
                    self._deliver(*waiting)
                waiting = started
            if waiting is not None:
                self._deliver(*waiting)
        return self.report

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[tuple[list[_Work], list[np.ndarray]]]:
        """Yields full batches of videos and clips, at last a partial one."""
        works: list[_Work] = []
        clips: list[np.ndarray] = []
        begin = said = time.monotonic()
        size = self.encoder.batch_size
        waiting = deque(self.jobs)
        tasks: dict[Future[list[np.ndarray]], _Work] = {}
        while waiting or tasks:
            while waiting and len(tasks) < self._num_open:
                work = _Work(waiting.popleft())
                tasks[pool.submit(self._decode, work)] = work
            # All threads have work while the network runs.
            while len(clips) >= size:
                yield works[:size], clips[:size]
                del works[:size], clips[:size]
            for task in wait(tasks, return_when=FIRST_COMPLETED).done:
                work = tasks.pop(task)
                try:
                    decoded = task.result()
                except VideoError as err:
                    self._fail(work.job, str(err))
                    continue
                work.num_clips += len(decoded)
                works += [work] * len(decoded)
                clips += decoded
                if len(decoded) == self._clips_per_task:
                    tasks[pool.submit(self._decode, work)] = work
                elif work.video is None:
                    self.report.num_present += 1
                else:
                    work.notes = work.video.notes
                    self._finish_if_complete(work)
            if time.monotonic() - said > _INTERVAL_S:
                said = time.monotonic()
                self._log_progress(said - begin)
        for first in range(0, len(clips), size):
            yield works[first : first + size], clips[first : first + size]

    def _decode(self, work: _Work) -> list[np.ndarray]:
        """Returns the next clips of a video: fewer than a task's when it ends, none if its features
        are there. Runs in a thread.
        """
        if work.video is None:
            if is_finished(work.job.feature, np.dtype(self.dtype)):
                return []
            num_threads = max(1, self.num_threads // self._num_open)
            work.video = VideoFile(work.job.video, hflip=self.hflip, num_threads=num_threads)
            work.clips = work.video.clips()
        return list(islice(work.clips, self._clips_per_task))

    def _fail(self, job: VideoJob, reason: str) -> None:
        self.report.failed[job.video_id] = reason
        self.report.notes.pop(job.video_id, None)  # of features that are gone
        logger.warning("%s: %s; left out", job.video, reason)

    def _deliver(self, pending: Pending, works: list[_Work]) -> None:
        """Hands a batch's features to their videos."""
        for work, row in zip(works, pending.result(), strict=True):
            work.rows += row.tobytes()
            self._finish_if_complete(work)

    def _finish_if_complete(self, work: _Work) -> None:
        num_rows = len(work.rows) // (4 * FEATURE_DIM)
        if work.notes is None or num_rows < work.num_clips:
            return
        rows_ND = np.frombuffer(work.rows, np.float32).reshape(num_rows, FEATURE_DIM)
        features = finish_features(
            rows_ND, l2_normalize=self.l2_normalize, dtype=np.dtype(self.dtype)
        )
        job, notes = work.job, self.report.notes
        if not np.isfinite(features).all():
            self._fail(job, "its features are not finite; try `--dtype fp32`")
            return
        if work.notes:
            logger.warning("%s: %s", job.video, "; ".join(work.notes))
        if work.notes != notes.pop(job.video_id, []):  # a repaired video loses its notes
            add_notes(job.feature.parent, job.video_id, work.notes)
        if work.notes:
            notes[job.video_id] = work.notes
        with atomic_write(job.feature, "wb") as file:
            np.save(file, features)
        self.report.written.append(job.video_id)
        self.report.seconds += len(features)

    def _log_progress(self, took_s: float) -> None:
        report = self.report
        num_worked = len(report.written) + len(report.failed)
        num_done = num_worked + report.num_present
        left_s = (report.num_videos - num_done) * took_s / max(num_worked, 1)
        logger.info(
            "%d of %d videos (%.0f%%), %.1f s of video/s, %d failed, %s left",
            *(num_done, report.num_videos, 100 * num_done / report.num_videos),
            *(report.seconds / took_s, len(report.failed)),
            format_seconds(left_s) if num_worked else "unknown time",
        )
