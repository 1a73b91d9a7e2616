"""Shows the moments of a search: a picture with a caption for each, and the player of one."""

from html import escape

from PIL import Image

from mmpt.app.video_files import VideoFiles, address
from mmpt.errors import DataError
from mmpt.inference.moment_index import MomentIndex
from mmpt.inference.moments import Moment
from mmpt.media.video_reader import VideoError
from mmpt.reporting.frames import read_frame
from mmpt.utils.log import format_seconds, get_logger

logger = get_logger(__name__)

PICTURE_SIZE = 320, 180
"""Width and height of the picture of a moment whose video cannot be read. The height is that of all
pictures."""
PICTURE_COLOUR = "#cbd5e1"
CANNOT_PLAY = (
    "The video cannot be played: its file is missing, or this browser does not support its format. "
    "Browsers play .mp4 files with H.264, and .webm files. <code>ffmpeg -i VIDEO -c:v libx264 "
    "-pix_fmt yuv420p NEW.mp4</code> converts a video."
)


def find_moments(index: MomentIndex, text: str, top: int) -> list[Moment]:
    """Returns the best moments for a text, best first.

    Raises:
        DataError: there is no text.
    """
    if not text.strip():
        raise DataError("Enter a description of what the video should show.")
    (moments,) = index.search([text.strip()], top)
    return moments


def picture(files: VideoFiles, moment: Moment) -> tuple[Image.Image, str]:
    """Returns the frame in the middle of a moment, and its caption.

    The frame is grey if the video has no file or cannot be read.
    """
    frame = Image.new("RGB", PICTURE_SIZE, PICTURE_COLOUR)
    path = files.video(moment.video)
    if path is not None:
        _, height = PICTURE_SIZE
        try:
            frame = read_frame(path, (moment.start + moment.end) / 2, height)
        except VideoError as err:
            logger.warning("%s: no picture: %s", path, err)
    return frame, describe(moment)


def describe(moment: Moment) -> str:
    """Returns time, score and video of a moment, such as `1:15–1:31 · 0.83 · pancakes`."""
    span = format_span(moment.start, moment.end)
    return f"{span} · {moment.score:.2f} · {moment.video}"


def format_span(start_s: float, end_s: float) -> str:
    """Returns start and end in seconds as text, for example `1:15–1:20`."""
    return f"{format_seconds(start_s)}–{format_seconds(end_s)}"


def player(files: VideoFiles, moment: Moment) -> str:
    """Returns the HTML that plays a moment."""
    caption = f'<p class="note">{escape(describe(moment))}</p>'
    if files.video(moment.video) is None:
        missing = (
            '<p class="note">It has no video file here, so it cannot be played.</p>'
        )
        return caption + missing
    source = address(moment.video, moment.start)
    return video_element(source, "autoplay") + caption


def video_element(source: str, attribute: str) -> str:
    """Returns the HTML of a video, and a note that appears if the browser cannot play it.

    Args:
        source: address of the video.
        attribute: a further attribute of the `video` element.
    """
    show_note = "this.nextElementSibling.hidden = false"
    # If the format of the pictures is not supported, some browsers play the sound alone.
    events = (
        f'onerror="{show_note}" onloadedmetadata="if (!this.videoWidth) {show_note}"'
    )
    video = f'<video controls {attribute} src="{escape(source)}" {events}></video>'
    return f'{video}<p class="note" hidden>{CANNOT_PLAY}</p>'
