"""Every kind of report opens in a real browser, offline, without an error, and shows what it
should.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpt.reporting import write_report
from tests.reporting.browser import Browser, find_browser
from tests.reporting.made_runs import NASTY, every_kind, retrieval
from tests.reporting.made_training import write_training

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium; apt-get install chromium")

VISIBLE = """[...document.querySelectorAll(%r)].filter(element => {
  const box = element.getBoundingClientRect(); return box.width > 20 && box.height > 5; }).length"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert BROWSER is not None
    browser = Browser(BROWSER, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def problems(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors on the console, exceptions, requests that failed or went anywhere but to the file
    itself and its data.
    """
    found = [
        e for e in events if e.get("method") in ("Runtime.exceptionThrown", "Network.loadingFailed")
    ]
    found += [
        e for e in events if e.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled")
    ]
    requests = [
        e["params"]["request"]["url"]
        for e in events
        if e.get("method") == "Network.requestWillBeSent"
    ]
    return found + [{"url": url} for url in requests if not url.startswith(("file:", "data:"))]


@pytest.mark.parametrize("kind", list(every_kind()))
def test_it_opens_without_an_error(browser: Browser, tmp_path: Path, kind: str) -> None:
    events = browser.open(write_report(every_kind()[kind], tmp_path / "report.html"))
    assert problems(events) == []
    # It does report requests.
    assert any(event.get("method") == "Network.requestWillBeSent" for event in events)
    num_sections = browser.evaluate("document.querySelectorAll('main > section').length")
    assert num_sections >= 2
    assert browser.evaluate(VISIBLE % "main > section > h2") == num_sections
    assert browser.evaluate(VISIBLE % "table tbody tr") > 0
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_all_of_a_retrieval_report_is_seen(browser: Browser, tmp_path: Path) -> None:
    write_training(tmp_path / "runs" / "new")
    events = browser.open(write_report(retrieval(str(tmp_path / "runs")), tmp_path / "report.html"))
    assert problems(events) == []
    assert browser.evaluate(VISIBLE % ".charts svg") == 5  # two terms, their sum, hardness, recall
    assert browser.evaluate(VISIBLE % ".charts svg path[style*=stroke-width]") > 6
    fonts = [
        browser.evaluate(f"getComputedStyle(document.querySelector('{name}')).fontFamily")
        for name in ("svg text", "body")
    ]
    assert fonts[0] == fonts[1]
    assert browser.evaluate(VISIBLE % "article.query .card.right") > 3
    assert (
        browser.evaluate("[...document.querySelectorAll('.words')].map(e => e.textContent)")[-1]
        == f"“{NASTY}”"
    )
    links = browser.evaluate(
        "[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))"
    )
    assert links


def test_the_test_sees_errors(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        '<img src="missing.png"><script>nonsense()</script><img src="http://127.0.0.1:1/x.png">'
    )
    methods = {problem.get("method") for problem in problems(browser.open(path))}
    assert {"Runtime.exceptionThrown", "Network.loadingFailed", None} <= methods
