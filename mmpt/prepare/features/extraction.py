"""Videos to feature files: threads decode, the main thread runs the network on batches that cross
video borders.

Decoding threads (FFmpeg works without the interpreter's lock) put one-second clips into a bounded
queue and wait when it is full, so memory is bounded by the batch size and the number of threads,
not by a video's length: about (3 batches + threads) x 4.5 MB, and 2 KB of features per second of
the videos in progress. While a GPU computes a batch, the next one is collected. A broken video ends
with a reason in the report and never stops the others.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
_POLL_S = 0.2  # how soon the end of a thread is noticed


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
    # Set by the thread that decodes it.
    is_present: bool = False
    error: Exception | None = None
    notes: list[str] = field(default_factory=list)
    # Set by the main thread.
    num_clips: int = 0
    has_ended: bool = False
    rows: bytearray = field(default_factory=bytearray)
    """Its features so far, float32 [clips, 512], in one growing piece of memory. An array for each
    would lie between the network's large ones and keep the allocator from joining the holes that
    those leave: with a small network that cost 18 MB for every second of video.
    """


_Message = tuple[_Work, np.ndarray | None]
"""A video and its next clip, uint8 [30, 224, 224, 3]; None when there are no more."""


class Extraction:
    """Extracts the features of `jobs` that are not there yet.

    Args:
        encoder: the network.
        num_threads: videos decoded at the same time. If there are fewer videos, each gets several
            decoder threads (by the number of `jobs`, finished or not: a rerun shall decode alike).
        hflip: mirror the pictures.
        l2_normalize: divide each row by its L2 norm.
        dtype: of the feature files.
    """

    def __init__(
        self,
        jobs: Sequence[VideoJob],
        encoder: ClipEncoder,
        *,
        num_threads: int = 4,
        hflip: bool = False,
        l2_normalize: bool = True,
        dtype: str = "float16",
    ):
        self.report = ExtractionReport(num_videos=len(jobs))
        self._jobs = jobs
        self._encoder = encoder
        self._hflip = hflip
        self._l2_normalize = l2_normalize
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        self._num_threads = max(1, min(num_threads, len(jobs)))
        self._threads_per_video = max(1, num_threads // self._num_threads)
        self._waiting = deque(jobs)
        self._stop = threading.Event()
        self._queue: queue.Queue[_Message] = queue.Queue(
            max(encoder.batch_size, 2 * self._num_threads)
        )

    def run(self) -> ExtractionReport:
        """Does the work. The report is also in `report` if this ends early (Ctrl-C).

        Call it in `extracting`, which keeps other processes out of this part of the videos.

        Raises:
            DataError: features cannot be written (disk full, no rights); finished ones stay.
        """
        files: dict[Path, dict[str, str]] = {}  # folder -> name of the feature file -> id
        for job in self._jobs:
            files.setdefault(job.feature.parent, {})[job.feature.name] = job.video_id
        for folder, names in files.items():
            remove_leftovers(folder, names)
            notes, ids = read_notes(folder), set(names.values())
            self.report.notes |= {name: notes[name] for name in notes if name in ids}
        threads = [
            threading.Thread(target=self._decode_videos, name=f"decode-{number}", daemon=True)
            for number in range(self._num_threads)
        ]
        for thread in threads:
            thread.start()
        try:
            waiting: tuple[Pending, list[_Work]] | None = None
            for works, clips in self._batches():
                started = self._encoder.start(clips), works
                if waiting is not None:
                    self._deliver(*waiting)
                waiting = started
            if waiting is not None:
                self._deliver(*waiting)
        finally:
            self._stop.set()
            for thread in threads:
                while thread.is_alive():
                    while not self._queue.empty():  # makes room for threads that wait for some
                        self._queue.get_nowait()
                    thread.join(_POLL_S)
        return self.report

    # ---- the main thread

    def _batches(self) -> Iterator[tuple[list[_Work], list[np.ndarray]]]:
        """Yields full batches of videos and clips, at last a partial one."""
        works: list[_Work] = []
        clips: list[np.ndarray] = []
        begin = said = time.monotonic()
        num_open = len(self._jobs)
        while num_open:
            work, pixels = self._queue.get()
            if pixels is None:
                num_open -= 1
                self._end(work)
            else:
                work.num_clips += 1
                works.append(work)
                clips.append(pixels)
            if len(works) == self._encoder.batch_size:
                yield works, clips
                works, clips = [], []
            if time.monotonic() - said > _INTERVAL_S:
                said = time.monotonic()
                self._log_progress(said - begin)
        if works:
            yield works, clips

    def _end(self, work: _Work) -> None:
        """Takes in the end of a video's decoding."""
        work.has_ended = True
        if isinstance(work.error, VideoError):
            self._fail(work.job, str(work.error))
        elif work.error is not None:
            raise work.error
        elif work.is_present:
            self.report.num_present += 1
        else:
            self._finish_if_complete(work)

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
        if not work.has_ended or work.error is not None or num_rows < work.num_clips:
            return
        rows_ND = np.frombuffer(work.rows, np.float32).reshape(num_rows, FEATURE_DIM)
        features = finish_features(rows_ND, l2_normalize=self._l2_normalize, dtype=self._dtype)
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

    # ---- the decoding threads

    def _decode_videos(self) -> None:
        """Takes one video after another until there are none, or the run ends."""
        num_threads = self._threads_per_video
        while self._waiting and not self._stop.is_set():
            try:
                work = _Work(self._waiting.popleft())
            except IndexError:  # another thread was faster
                return
            try:
                work.is_present = is_finished(work.job.feature, self._dtype)
                if not work.is_present:
                    video = VideoFile(work.job.video, hflip=self._hflip, num_threads=num_threads)
                    for pixels in video.clips():
                        if self._stop.is_set():
                            return
                        self._queue.put((work, pixels))
                    work.notes = video.notes
            except Exception as err:  # the main thread reports or raises it
                work.error = err
            self._queue.put((work, None))
