"""Tests that every kind of report opens in a real browser, offline and without an error.

Reports contain no scripts. The browser therefore opens another page, which shows the report in a
frame, inspects it with a script, and prints the result.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mmpt.reporting import write_report
from mmpt.reporting.training_runs import read_training_runs, write_training_page
from tests.support.sample_runs import NASTY, every_kind, retrieval, write_training
from tests.support.sample_trainings import write_run

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium; apt-get install chromium"),
]

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *(
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        "--window-size=1280,1600",
    ),
    *("--virtual-time-budget=5000", "--dump-dom"),
)
LOOKING_PAGE = """<iframe src="report.html" style="width:1240px;height:1500px"></iframe><pre></pre>
<script>onload = () => {
  const view = frames[0], page = view.document, all = name => [...page.querySelectorAll(name)];
  const visible = name => all(name).filter(element => {
    const box = element.getBoundingClientRect(); return box.width > 20 && box.height > 5; }).length;
  document.querySelector("pre").textContent = JSON.stringify({
    requests: view.performance.getEntriesByType("resource").map(entry => entry.name),
    sections: all("main > section").length,
    headings: visible("main > section > h2"),
    rows: visible("table tbody tr"),
    charts: visible(".charts svg"),
    lines: visible(".charts svg path[style*=stroke-width]"),
    right: visible("article.query .card.right"),
    fits: page.documentElement.scrollWidth <= view.innerWidth,
    words: all(".words").map(element => element.textContent),
    links: all("nav a").every(link => page.querySelector(link.hash)),
    fonts: ["svg text", "body"].map(name => {
      const element = page.querySelector(name);
      return element && view.getComputedStyle(element).fontFamily; }),
  }); }</script>"""


def look(folder: Path) -> dict[str, Any]:
    """Opens `report.html`. Returns what the script found, and the errors on the console."""
    (folder / "look.html").write_text(LOOKING_PAGE)
    page = (folder / "look.html").as_uri()
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={folder}/profile", page]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    )
    (printed,) = re.findall("<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(printed)) | {"errors": errors}


@pytest.mark.parametrize("kind", list(every_kind()))
def test_a_report_opens_without_an_error(tmp_path: Path, kind: str) -> None:
    write_report(every_kind()[kind], tmp_path / "report.html")
    seen = look(tmp_path)
    assert seen["errors"] == seen["requests"] == []
    assert seen["headings"] == seen["sections"] >= 2
    assert seen["rows"] > 0
    assert seen["fits"]


def test_all_parts_of_a_retrieval_report_are_visible(tmp_path: Path) -> None:
    write_training(tmp_path / "runs" / "new")
    write_report(retrieval(str(tmp_path / "runs")), tmp_path / "report.html")
    seen = look(tmp_path)
    assert seen["errors"] == seen["requests"] == []
    assert seen["charts"] == 4  # two terms, their sum, hardness
    assert seen["lines"] > 6
    assert seen["fonts"][0] == seen["fonts"][1]
    assert seen["right"] > 3
    assert seen["words"][-1] == f"“{NASTY}”"
    assert seen["links"]


def test_the_page_of_training_runs_opens_without_an_error(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", offset=1)
    write_training_page(read_training_runs([one, two]), [], tmp_path / "report.html")
    seen = look(tmp_path)
    assert seen["errors"] == seen["requests"] == []
    assert seen["headings"] == seen["sections"] == 5
    assert seen["charts"] == 7  # losses, rate, three of retrieval, memory
    assert seen["fits"]
    assert seen["links"]
