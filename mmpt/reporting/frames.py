"""Key frames for the gallery: the picture in the middle of a clip as a small JPEG.

PyAV and Pillow are imported when the first picture is read: reports without pictures need neither.
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
"""Of a picture, in pixels; with `_QUALITY` one is about 5 kB."""
_QUALITY = 72


class KeyFrames:
    """Pictures of clips.

    Args:
        videos: folder of video files, named by their ids; None: no pictures.
    Raises:
        DataError: there is no video in the folder.
    """

    def __init__(self, videos: str | Path | None = None):
        jobs = [] if videos is None else find_videos([videos], "").jobs
        self._files = {job.video_id: job.video for job in jobs}

    def uri(self, clip: ClipId) -> str | None:
        """Returns a clip's picture as a `data:` address; None if its video is missing or broken."""
        path = self._files.get(clip.video_id)
        if path is None:
            return None
        from mmpt.media.video_reader import VideoError

        middle_s = None if clip.end_s is None else ((clip.start_s or 0) + clip.end_s) / 2
        buffer = io.BytesIO()
        try:
            read_picture(path, middle_s).save(buffer, "JPEG", quality=_QUALITY)
        except VideoError as err:
            logger.warning("%s: no key frame: %s", path, err)
            return None
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def read_picture(path: str | Path, time_s: float | None = None, height: int = HEIGHT) -> Image:
    """Returns the picture of a video at a time, upright, `height` high before it is turned.

    Args:
        time_s: seconds from the start; past the end the last picture; None: the middle.
    Raises:
        VideoError: it cannot be read.
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
        # To the last full picture before it.
        container.seek(round((start_s + time_s) * av.time_base))
        shown = None
        for frame in container.decode(stream):
            if shown is not None and frame.time is not None and frame.time - start_s > time_s:
                break
            shown = frame
        if shown is None:
            raise VideoError("no picture could be decoded there")
        width = max(2, round(height * shown.width / shown.height))
        picture: Image = shown.to_image(width=width, height=height)  # type: ignore[no-untyped-call]
        return picture.rotate(shown.rotation, expand=True)
