"""The page in Gradio: a tab that searches moments, and a tab that aligns a transcript.

The page loads nothing from other servers, and sends nothing to them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib import resources
from tempfile import TemporaryDirectory
from typing import Any

# Gradio reads these when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from mmpt.app.results import find_moments, picture, player
from mmpt.app.transcripts import Aligner
from mmpt.app.video_files import ROUTE, VideoFiles
from mmpt.errors import DataError, LaunchError, UserError
from mmpt.inference.moment_index import MomentIndex
from mmpt.inference.moments import Moment
from mmpt.prepare.captions.reader import CAPTION_SUFFIXES

MAX_CHOICES = 1000
"""Largest number of videos in a list. If there are more, a name can be typed."""
COLUMNS = 3
HINT = '<p class="note">Click a moment to play it.</p>'
FONT = ["ui-sans-serif", "system-ui", "sans-serif"]
MONO_FONT = ["ui-monospace", "monospace"]
"""Fonts of the system. They cover the user's languages, and nothing is downloaded for them."""


@contextmanager
def serve_page(
    index: MomentIndex,
    files: VideoFiles,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    top: int = 12,
) -> Iterator[str]:
    """Serves the page during the block. Yields its address.

    Args:
        index: the index.
        files: the files of its videos.
        host: address to listen on. Only this machine can reach 127.0.0.1.
        port: None: the first free port from 7860.
        top: number of moments that a search shows.
    Raises:
        LaunchError: the port is in use.
    """
    fonts: dict[str, Any] = {"font": FONT, "font_mono": MONO_FONT}
    with _folder_of_gradio():
        page = build_page(index, files, top)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                ssr_mode=False,
                prevent_thread_lock=True,
                footer_links=[],
                max_file_size="10mb",
                allowed_paths=[],
                theme=gr.themes.Soft(primary_hue="blue", **fonts),
                css=_read("page.css"),
                app_kwargs={"routes": [video_route(files)]},
            )
        except OSError as err:
            raise LaunchError(
                f"`--port` must be free on {host}, but {port or '7860 to 7959'} cannot be used "
                "(another program may use it). Give another port."
            ) from err
        try:
            yield page.local_url
        finally:
            page.close(verbose=False)


@contextmanager
def _folder_of_gradio() -> Iterator[None]:
    """Makes Gradio store pictures and transcripts in a folder that is removed after the block.

    Gradio serves all files of that folder. Its default folder is shared by all its pages.
    """
    name = "GRADIO_TEMP_DIR"
    before = os.environ.pop(name, None)
    with TemporaryDirectory(prefix="mmpt_app_") as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before


def video_route(files: VideoFiles) -> Route:
    """Returns the route that serves the videos of an index by name, and no other files."""

    def serve_video(request: Request) -> Response:
        path = files.video(request.path_params["name"])
        if path is None:
            return PlainTextResponse("no such video", status_code=404)
        return FileResponse(path)

    return Route(f"/{ROUTE}/{{name:path}}", serve_video)


def build_page(index: MomentIndex, files: VideoFiles, top: int) -> gr.Blocks:
    """Returns the page of an index."""
    with gr.Blocks(title="mmpt app", analytics_enabled=False) as page:
        gr.Markdown(f"# Search {len(files.names):,} videos")
        video = gr.Dropdown(
            list(files.names)[:MAX_CHOICES],
            label="Video",
            allow_custom_value=len(files.names) > MAX_CHOICES,
            render=False,
        )
        with gr.Tab("Search"):
            _search_tab(index, files, top, video)
        with gr.Tab("Align a transcript"):
            _alignment_tab(index, files, video)
    return page


def _search_tab(
    index: MomentIndex, files: VideoFiles, top: int, video: gr.Dropdown
) -> None:
    """Adds the components of a search. A click on a moment also chooses its video."""
    moments = gr.State([])
    with gr.Row():
        text = gr.Textbox(
            placeholder="Describe what the video should show, then press Enter",
            show_label=False,
            container=False,
            scale=5,
            elem_id="query",
        )
        button = gr.Button("Search", variant="primary", scale=1)
    with gr.Row():
        gallery = gr.Gallery(
            columns=COLUMNS,
            object_fit="cover",
            allow_preview=False,
            show_label=False,
            height="auto",
            buttons=[],
            scale=3,
            elem_id="moments",
        )
        with gr.Column(scale=2):
            shown = gr.HTML(HINT, elem_id="player")

    def search(text: str) -> tuple[list[Moment], list[Any], str]:
        with report_errors():
            found = find_moments(index, text, top)
            return found, [picture(files, moment) for moment in found], HINT

    def choose(moments: list[Moment], event: gr.SelectData) -> tuple[str, str]:
        moment = moments[event.index]
        return player(files, moment), moment.video

    gr.on([text.submit, button.click], search, [text], [moments, gallery, shown])
    gallery.select(choose, [moments], [shown, video])


def _alignment_tab(index: MomentIndex, files: VideoFiles, video: gr.Dropdown) -> None:
    """Adds the components of an alignment."""
    aligner = Aligner(index.model, files)
    with gr.Row():
        with gr.Column(scale=2):
            video.render()
            monotone = gr.Checkbox(
                True,
                label="In order",
                info="The best moments are in the order of the sentences.",
            )
            button = gr.Button("Align", variant="primary")
        transcript = gr.File(
            label="Transcript",
            file_types=list(CAPTION_SUFFIXES),
            height=220,
            scale=3,
            elem_id="transcript",
        )
    result = gr.HTML(js_on_load=_read("alignment.js"), elem_id="result")

    def align(name: str | None, path: str | None, monotone: bool) -> str:
        with report_errors():
            if not name or not path:
                raise DataError("Choose a video and a transcript first.")
            return aligner.align(name, path, monotone)

    button.click(align, [video, transcript, monotone], result)


@contextmanager
def report_errors() -> Iterator[None]:
    """Shows a user error on the page."""
    try:
        yield
    except UserError as err:
        raise gr.Error(escape(str(err)), print_exception=False) from err


def _read(name: str) -> str:
    """Returns a file of the templates."""
    return (resources.files("mmpt.app") / "templates" / name).read_text("utf-8")
