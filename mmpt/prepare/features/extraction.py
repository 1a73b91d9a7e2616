"""Extracts features from videos. Threads decode, and the main thread runs the networks.

The work is divided like this:

- A task of a thread decodes and prepares the next few clips of one video. A clip has the frames of
  one feature row, which is a second with S3D. FFmpeg releases the GIL while it decodes.
- The main thread collects the clips of finished tasks, starts the next task of the same video, and
  runs a network when it has a full batch. While a GPU computes one batch, the next is collected.

With several encoders, a video is decoded once for all encoders whose features are missing.

Memory is bounded by the batch size and the number of threads, not by the length of videos. With S3D
it is about (5 batches + 4 x threads) x 4.5 MB, plus 2 KB of features per second of the videos in
progress. Each further encoder needs memory of its own. A video that is broken, or that an encoder
cannot use, is reported with a reason and never stops the others.
"""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import KW_ONLY, dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from mmpt.media.clip_encoder import EncoderError
from mmpt.media.video_list import VideoJob
from mmpt.media.video_reader import VideoError, VideoFile
from mmpt.prepare.features.encoder_run import EncoderRun, VideoRows
from mmpt.utils.log import format_seconds, get_logger

logger = get_logger(__name__)

_INTERVAL_S = 10.0  # between two progress lines


class _Missing(NamedTuple):
    """Features of a video that do not exist yet."""

    run: EncoderRun
    rows: VideoRows


@dataclass(eq=False)
class _Video:
    """A video that is decoded once, for all encoders whose features are missing."""

    jobs: tuple[VideoJob, ...]  # of each encoder
    missing: list[_Missing] = field(default_factory=list)
    file: VideoFile | None = None  # None: not opened, or all features exist already
    # The clips that are not decoded yet, each with its index in `missing`.
    clips: Iterator[tuple[int, np.ndarray]] = field(init=False)


class _Clip(NamedTuple):
    """The prepared frames of one feature row of one encoder."""

    missing: _Missing
    pixels: torch.Tensor | EncoderError | None
    """None: the encoder could not use an earlier clip of the video."""


@dataclass
class Extraction:
    """Extracts the features of the videos that have none yet.

    Args:
        runs: the encoders, at least one. All have the same videos, in the same order.
        num_threads: number of videos that are decoded at the same time. If there are fewer videos,
            each gets several decoder threads. This depends on the number of jobs, finished or not,
            so that a rerun decodes in the same way.
        hflip: mirror the frames horizontally.
    """

    runs: Sequence[EncoderRun]
    _: KW_ONLY
    num_threads: int = 4
    hflip: bool = False

    def __post_init__(self) -> None:
        # The jobs of each video, one per encoder.
        jobs_of_runs = [run.jobs for run in self.runs]
        self._jobs = list(zip(*jobs_of_runs, strict=True))
        # Number of videos that are decoded at the same time.
        self._num_open = max(1, min(self.num_threads, len(self._jobs)))
        # Together, the threads decode one batch while another one is in the network.
        batch_size = sum(run.encoder.batch_size for run in self.runs)
        clips_per_thread = math.ceil(batch_size / self._num_open)
        self._clips_per_task = max(2, clips_per_thread)

    def run(self) -> None:
        """Extracts the features. The results are in `run.report` of each run, also after Ctrl-C.

        Call it within `extracting`, which keeps other processes from the same videos.

        Raises:
            DataError: features cannot be written (full disk, no permission), or have a wrong
                shape. Finished ones stay.
        """
        for run in self.runs:
            run.prepare_folders()
        begin = last_log = time.monotonic()
        unopened = deque(map(_Video, self._jobs))
        tasks: dict[Future[list[_Clip]], _Video] = {}
        with ThreadPoolExecutor(self._num_open) as pool:
            while unopened or tasks:
                # Give every thread a task before the networks run.
                while unopened and len(tasks) < self._num_open:
                    video = unopened.popleft()
                    tasks[pool.submit(self._decode, video)] = video
                for run in self.runs:
                    run.encode_batches()
                # Collect the clips of finished tasks. A video that has more gets another task.
                finished = wait(tasks, return_when=FIRST_COMPLETED).done
                for task in finished:
                    video = tasks.pop(task)
                    if self._collect(video, task):
                        tasks[pool.submit(self._decode, video)] = video
                now = time.monotonic()
                if now - last_log > _INTERVAL_S:
                    last_log = now
                    self._log_progress(now - begin)
            for run in self.runs:
                run.encode_batches(at_end=True)
        for run in self.runs:
            report = run.report
            assert report.num_done == report.num_videos, (
                "each video must have features or a reason why it has none"
            )

    def _decode(self, video: _Video) -> list[_Clip]:
        """Returns the next clips of a video, prepared for their encoders. Runs in a thread.

        There are fewer clips than `_clips_per_task` at the end of the video, and none if all its
        features exist already.
        """
        if video.file is None:
            for run, job in zip(self.runs, video.jobs, strict=True):
                if not run.is_finished(job):
                    video.missing.append(_Missing(run, VideoRows(job)))
            if not video.missing:
                return []
            video.file = VideoFile(
                video.jobs[0].video,
                hflip=self.hflip,
                num_threads=max(1, self.num_threads // self._num_open),
                samplings=[run.encoder.sampling for run, _ in video.missing],
            )
            video.clips = video.file.clips_of_each()
        decoded = []
        for index, clip in islice(video.clips, self._clips_per_task):
            missing = video.missing[index]
            pixels: torch.Tensor | EncoderError | None = None
            if not missing.rows.has_failed:
                try:
                    pixels = missing.run.encoder.prepare(clip)
                except EncoderError as err:
                    pixels = err
            decoded.append(_Clip(missing, pixels))
        return decoded

    def _collect(self, video: _Video, task: Future[list[_Clip]]) -> bool:
        """Passes the clips of a finished task to their encoders. Returns whether there are more."""
        try:
            decoded = task.result()
        except VideoError as err:
            self._end(video, str(err))
            return False
        for (run, rows), pixels in decoded:
            if isinstance(pixels, EncoderError):
                run.give_up(rows, str(pixels))
            elif pixels is not None:
                run.add(rows, pixels)
        is_wanted = any(not rows.has_failed for _, rows in video.missing)
        if is_wanted and len(decoded) == self._clips_per_task:
            return True
        self._end(video)
        return False

    def _end(self, video: _Video, error: str | None = None) -> None:
        """Ends a video after its last clip, or after an error."""
        for run in self.runs:
            if all(run is not missing.run for missing in video.missing):
                run.report.num_present += 1
        if video.file is None:
            return
        reasons = set()
        for index, (run, rows) in enumerate(video.missing):
            # An encoder may have failed before the others.
            reason = video.file.failed.get(index, error)
            if rows.has_failed:  # and is reported already
                continue
            if reason is None:
                run.end(rows, video.file.notes)
            else:
                run.fail(rows.job, reason)
                reasons.add(reason)
        for reason in reasons:
            logger.warning("%s: %s; left out", video.file.path, reason)
        if error is None and video.file.notes:
            logger.warning("%s: %s", video.file.path, "; ".join(video.file.notes))

    def _log_progress(self, took_s: float) -> None:
        """Logs counts, speed and the time left, which is estimated from the videos of this run.

        With several encoders, the encoder with the fewest finished videos is reported.
        """
        report = min((run.report for run in self.runs), key=lambda each: each.num_done)
        num_new = len(report.written) + len(report.failed)
        num_left = report.num_videos - report.num_done
        time_left = "unknown time"
        if num_new:
            time_left = format_seconds(num_left * took_s / num_new)
        logger.info(
            "%d of %d videos (%.0f%%), %.1f s of video/s, %d failed, %s left",
            report.num_done,
            report.num_videos,
            100 * report.num_done / report.num_videos,
            report.seconds / took_s,
            len(report.failed),
            time_left,
        )
