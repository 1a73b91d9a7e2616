"""Key frames for the gallery: the frame in the middle of a clip as a small JPEG.

PyAV and Pillow are imported when the first frame is read. Reports without key frames need neither.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt.evaluators import ClipId
from mmpt.media.video_list import find_videos
from mmpt.utils.log import get_logger

if TYPE_CHECKING:
    from PIL.Image import Image

logger = get_logger(__name__)

HEIGHT = 112
"""Height of a key frame in pixels. With `_QUALITY`, a key frame has about 5 kB."""
_QUALITY = 72


class KeyFrames:
    """The key frames of clips.

    Args:
        videos: folder of video files that are named by their ids; None: there are no key frames.
    Raises:
        DataError: there is no video in the folder.
    """

    def __init__(self, videos: str | Path | None = None):
        jobs = [] if videos is None else find_videos([videos], "").jobs
        self._files = {job.video_id: job.video for job in jobs}

    def uri(self, clip: ClipId) -> str | None:
        """Returns a clip's key frame as a `data:` URI; None if its video is missing or broken."""
        path = self._files.get(clip.video_id)
        if path is None:
            return None
        from mmpt.media.video_reader import VideoError

        middle_s = None
        if clip.end_s is not None:
            start_s = clip.start_s or 0
            middle_s = (start_s + clip.end_s) / 2
        try:
            frame = read_frame(path, middle_s)
        except VideoError as err:
            logger.warning("%s: no key frame: %s", path, err)
            return None
        buffer = io.BytesIO()
        frame.save(buffer, "JPEG", quality=_QUALITY)
        encoded = base64.b64encode(buffer.getvalue()).decode()
        return f"data:image/jpeg;base64,{encoded}"


def read_frame(
    path: str | Path, time_s: float | None = None, height: int = HEIGHT
) -> Image:
    """Returns the frame that a video shows at a time, upright.

    Args:
        path: the video file.
        time_s: time in seconds from the start; None: the middle. After the end of the video, the
            last frame is returned.
        height: height in pixels before the frame is rotated.
    Raises:
        VideoError: the video cannot be read.
    """
    import av

    from mmpt.media.video_reader import VideoError, as_video_error, choose_stream

    with (
        as_video_error(),
        av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container,
    ):
        stream = choose_stream(container)
        start_s = (container.start_time or 0) / av.time_base
        if time_s is None:
            time_s = (container.duration or 0) / av.time_base / 2
        # A decoder can start at a key frame only. Seek to the last one before the time, then decode
        # until a frame is later than the time. The frame before it is shown then.
        container.seek(round((start_s + time_s) * av.time_base))
        shown = None
        for frame in container.decode(stream):
            is_later = frame.time is not None and frame.time - start_s > time_s
            if is_later and shown is not None:
                break
            shown = frame
        if shown is None:
            raise VideoError("no frame could be decoded there")
        width = max(2, round(height * shown.width / shown.height))
        image: Image = shown.to_image(width=width, height=height)  # type: ignore[no-untyped-call]
        return image.rotate(shown.rotation, expand=True)
