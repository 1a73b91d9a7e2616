"""Videos to feature files: threads decode, the main thread runs the network on batches that cross
video borders.

Decoding threads (FFmpeg works without the interpreter's lock) put one-second clips into a bounded
queue and wait when it is full, so memory is bounded by the batch size and the number of threads,
not by a video's length: about (3 batches + threads) x 4.5 MB, and 2 KB of features per second of
the videos at work. While a GPU computes a batch, the next one is collected. A broken video ends
with a reason in the report and never stops the others.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.media.video_list import VideoJob
from mmpt.media.video_reader import VideoError, VideoFile
from mmpt.prepare.features.clip_encoder import ClipEncoder, Pending, finish_features
from mmpt.prepare.features.feature_files import add_notes, is_finished, read_notes, write_features
from mmpt.prepare.features.work import (
    Clip,
    Crashed,
    Decoded,
    ExtractionReport,
    Failed,
    Present,
    Work,
)
from mmpt.utils.io import remove_leftovers
from mmpt.utils.log import format_seconds, get_logger

logger = get_logger(__name__)

_POLL_S = 0.2  # how soon threads notice that the run ends


class _StopError(Exception):
    """The run ends; the thread shall end too."""


class Extraction:
    """Extracts the features of `jobs` that are not there yet.

    Args:
        encoder: the network.
        num_threads: videos decoded at the same time. If there are fewer videos, each gets several
            decoder threads (by the number of `jobs`, finished or not: a rerun shall decode alike).
        hflip: mirror the pictures.
        l2_normalize: divide each row by its L2 norm.
        dtype: of the feature files.
        interval_s: seconds between two lines of progress.
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
        interval_s: float = 10.0,
    ):
        self.report = ExtractionReport(num_videos=len(jobs))
        self._encoder = encoder
        self._hflip = hflip
        self._l2_normalize = l2_normalize
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        self._interval_s = interval_s
        self._num_threads = max(1, min(num_threads, len(jobs)))
        self._threads_per_video = max(1, num_threads // self._num_threads)
        self._waiting = iter(jobs)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(max(encoder.batch_size, 2 * self._num_threads))
        self._names: dict[Path, set[str]] = {}  # of the feature files, by folder
        for job in jobs:
            self._names.setdefault(job.feature.parent, set()).add(job.feature.name)
        self._jobs = jobs

    def run(self) -> ExtractionReport:
        """Do the work; the report is also in `report` if this ends early (Ctrl-C).

        Call it in `extracting`, which keeps other processes out of this part of the videos.

        Raises:
            DataError: features cannot be written (disk full, no rights); finished ones stay.
        """
        for folder, features in self._names.items():
            remove_leftovers(folder, features)
        self._noted = {folder: read_notes(folder) for folder in self._names}
        names = [f"decode-{number}" for number in range(self._num_threads)]
        threads = [
            threading.Thread(target=self._decode_videos, name=name, daemon=True) for name in names
        ]
        for thread in threads:
            thread.start()
        try:
            waiting: tuple[Pending, list[Clip]] | None = None
            for batch in self._batches(len(threads)):
                started = (
                    (self._encoder.start([clip.pixels for clip in batch]), batch) if batch else None
                )
                if waiting is not None:
                    self._deliver(*waiting)
                waiting = started
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        self._take_notes()
        return self.report

    # ---- the main thread

    def _batches(self, num_threads: int) -> Iterator[list[Clip]]:
        """Yield full batches, at last a partial one and an empty one (which delivers the one
        before).
        """
        batch: list[Clip] = []
        begin = said = time.monotonic()
        while num_threads:
            message = self._queue.get()
            if message is None:
                num_threads -= 1
            elif isinstance(message, Clip):
                batch.append(message)
            else:
                self._note(message)
            if len(batch) == self._encoder.batch_size:
                yield batch
                batch = []
            if time.monotonic() - said > self._interval_s:
                said = time.monotonic()
                self._say_progress(said - begin)
        if batch:
            yield batch
        yield []

    def _note(self, message: Decoded | Failed | Present | Crashed) -> None:
        """Take in what a thread says besides clips."""
        report = self.report
        if isinstance(message, Crashed):
            raise message.error
        if isinstance(message, Decoded):
            message.work.num_clips, message.work.notes = message.num_clips, message.notes
            self._finish_if_complete(message.work)
        elif isinstance(message, Failed):
            report.failed[message.job.video_id] = message.reason
            logger.warning("%s: %s; left out", message.job.video, message.reason)
        else:
            report.num_present += 1

    def _deliver(self, pending: Pending, batch: list[Clip]) -> None:
        """Hand a batch's features to their videos."""
        for clip, row in zip(batch, pending.result(), strict=True):
            clip.work.rows.append(row)
            self._finish_if_complete(clip.work)

    def _finish_if_complete(self, work: Work) -> None:
        if work.num_clips is None or len(work.rows) < work.num_clips:
            return
        features = finish_features(
            work.rows.stack(), l2_normalize=self._l2_normalize, dtype=self._dtype
        )
        if np.isfinite(features).all():
            self._keep_notes(work.job, work.notes)
            write_features(work.job.feature, features)
            self.report.written.append(work.job.video_id)
            self.report.seconds += len(features)
        else:
            self._note(Failed(work.job, "its features are not finite; try `--dtype fp32`"))

    def _keep_notes(self, job: VideoJob, notes: list[str]) -> None:
        """Say and remember what is wrong with a video; a mended one loses its notes."""
        folder = job.feature.parent
        if notes:
            self.report.notes[job.video_id] = notes
            logger.warning("%s: %s", job.video, "; ".join(notes))
        if notes != self._noted[folder].get(job.video_id, []):
            add_notes(folder, job.video_id, notes)

    def _take_notes(self) -> None:
        """Report the notes of all videos that have features, whichever run or process made
        those.
        """
        noted = {folder: read_notes(folder) for folder in self._names}
        for job in self._jobs:
            if job.video_id not in self.report.failed and (
                notes := noted[job.feature.parent].get(job.video_id)
            ):
                self.report.notes[job.video_id] = notes

    def _say_progress(self, took_s: float) -> None:
        report = self.report
        worked = len(report.written) + len(report.failed)
        left = (
            format_seconds((report.num_videos - report.num_done) * took_s / worked)
            if worked
            else "unknown time"
        )
        logger.info(
            "%d of %d videos (%.0f%%), %.1f s of video/s, %d failed, %s left",
            *(report.num_done, report.num_videos, 100 * report.num_done / report.num_videos),
            *(report.seconds / took_s, len(report.failed), left),
        )

    # ---- the decoding threads

    def _decode_videos(self) -> None:
        """Take one video after another until there are none."""
        try:
            while True:
                with self._lock:
                    job = next(self._waiting, None)
                if job is None:
                    break
                self._decode_video(job)
            self._put(None)
        except _StopError:
            return
        except Exception as err:  # a full disk, or a mistake of ours: the main thread raises it
            with suppress(_StopError):
                self._put(Crashed(err))

    def _decode_video(self, job: VideoJob) -> None:
        if is_finished(job.feature, self._dtype):
            self._put(Present())
            return
        work = Work(job)
        video = VideoFile(job.video, hflip=self._hflip, num_threads=self._threads_per_video)
        num_clips = 0
        try:
            for pixels in video.clips():
                self._put(Clip(work, pixels))
                num_clips += 1
        except VideoError as err:
            self._put(Failed(job, str(err)))
            return
        self._put(Decoded(work, num_clips, video.notes))

    def _put(self, message: object) -> None:
        """Queue a message, waiting for room as long as the run goes on."""
        while not self._try_put(message):
            if self._stop.is_set():
                raise _StopError

    def _try_put(self, message: object) -> bool:
        try:
            self._queue.put(message, timeout=_POLL_S)
        except queue.Full:
            return False
        return True
