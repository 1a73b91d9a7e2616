"""The page in a real browser, and the files that its server provides."""

import http.client
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mmpt.errors import LaunchError

pytest.importorskip("gradio", reason="the page needs the extra `app`")
playwright = pytest.importorskip("playwright.sync_api", reason="drives Chromium")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
COUNT_PLAYS = """HTMLMediaElement.prototype.play = function () {
  window.plays = (window.plays || 0) + 1; return Promise.resolve(); }"""
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def url(small) -> Iterator[str]:
    """The address of the page."""
    from mmpt.app.page import serve_page  # needs Gradio

    index, files = small
    with serve_page(index, files, top=6) as address:
        yield address


def get(url: str, path: str) -> http.client.HTTPResponse:
    """Requests a path unchanged. Higher-level clients would resolve `..`."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.request("GET", path, headers={"Range": "bytes=0-9"})
    return connection.getresponse()


def test_a_video_of_the_index_is_served_in_parts(url: str) -> None:
    response = get(url, "/videos/deep/bread")
    assert response.status == 206
    assert response.headers["content-type"] == "video/mp4"
    assert len(response.read()) == 10


def test_no_other_file_is_served(url: str, small) -> None:
    _, files = small
    video = files.video("deep/bread")
    folder = video.parents[1]
    assert (folder / "other.mp4").is_file()
    for path in ("other", "other.mp4", "deep/bread.npy", "../index/index.json"):
        assert get(url, f"/videos/{path}").status == 404, path
    assert get(url, "/videos//etc/passwd").status == 404
    # Gradio's own route serves none of them, and no file of the current folder.
    here = Path("pyproject.toml").resolve()
    for file in (video, folder / "other.mp4", here, Path("/etc/passwd")):
        assert get(url, f"/gradio_api/file={file}").status == 403, file


def test_only_local_connections_are_accepted(url: str) -> None:
    assert urlsplit(url).hostname == "127.0.0.1"


def test_a_port_in_use_gives_one_error(url: str, small) -> None:
    from mmpt.app.page import serve_page

    port = urlsplit(url).port
    message = f"`--port` must be free on 127.0.0.1, but {port} cannot be used"
    with pytest.raises(LaunchError, match=message), serve_page(*small, port=port):
        pass


@pytest.fixture
def page(url: str) -> Iterator[Any]:
    """The page in Chromium. All requests and errors are recorded.

    Calls of `play` are counted and do nothing, so that a video stays at its second
    even on a busy machine. A video with `autoplay` plays.
    """
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.add_init_script(COUNT_PLAYS)
        page.requests, page.errors = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(error))
        page.goto(url)
        yield page
        browser.close()


def wait_for_time(page: Any, selector: str, least: float, below: float) -> None:
    """Waits until a video is at a second within these bounds."""
    time = f"document.querySelector('{selector} video')?.currentTime"
    page.wait_for_function(f"{least} <= {time} && {time} < {below}")


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium; apt-get install chromium")
def test_search_and_align_in_a_browser(page: Any, url: str, transcript: Path) -> None:
    # The best moment for a sentence is played from its start.
    page.locator("#query textarea, #query input").fill("mix the dough")
    page.keyboard.press("Enter")
    page.locator("#moments .thumbnail-item").nth(5).wait_for()
    best = page.locator("#moments .thumbnail-item").first
    span, score, name = best.inner_text().split(" · ")
    assert name == "deep/bread"
    assert float(score) > 0
    start = int(span[2:4])
    assert start < 16
    best.click()
    wait_for_time(page, "#player", start + 0.1, 25)  # it plays to the end
    source = page.locator("#player video").get_attribute("src")
    assert source == f"videos/deep/bread#t={start}"

    # A note is shown below a video that cannot be played.
    note = page.locator("#player").get_by_text("cannot be played")
    assert note.is_hidden()
    page.evaluate("document.querySelector('#player video').src = 'videos/none'")
    note.wait_for()

    # A mistake is shown as text.
    page.get_by_role("tab", name="Align a transcript").click()
    page.get_by_role("button", name="Align", exact=True).click()
    page.get_by_text("Choose a video and a transcript first.").wait_for()

    # A transcript is aligned. Sentences and heat maps lead to the right second.
    page.get_by_label("Video").first.click()
    page.get_by_role("option", name="pancakes & co").click()
    page.locator("#transcript input[type=file]").set_input_files(transcript)
    page.get_by_text("pancakes.vtt").wait_for()
    page.get_by_role("button", name="Align", exact=True).click()
    matrix = page.locator("#result svg image").first
    matrix.wait_for()
    page.locator("#result tr[data-start]").nth(2).click()
    wait_for_time(page, "#result", 22, 22.01)
    page.locator("#result .cursor").first.wait_for(state="attached")
    box = matrix.bounding_box()
    assert box["width"] > 200
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.click(x, y)
    wait_for_time(page, "#result", 14.5, 15.5)
    assert page.evaluate("window.plays") == 2

    # The page needs no network.
    assert len(page.requests) > 20
    own = (url, f"blob:{url}", "data:")
    assert [name for name in page.requests if not name.startswith(own)] == []
    assert page.errors == []
