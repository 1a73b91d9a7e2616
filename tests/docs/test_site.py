"""The site builds without warnings, its links are valid, and the reference is complete."""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from mmpt.cli.main import COMMANDS, main
from tests.support.help_texts import help_of
from tests.support.paths import ROOT

pytest.importorskip("material", reason="the site needs the extra `docs`")
GUIDES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in strict mode: a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(out),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src"):
                self.links.append(value or "")


@pytest.mark.spawn
def test_every_link_leads_to_a_file_and_an_anchor(site: Path) -> None:
    pages = {
        path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"
    }
    assert len(pages) > 30
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):  # another site
                continue
            target, _, anchor = unquote(link).partition("#")
            file = (path.parent / target).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            assert file.exists(), f"{path.relative_to(site)}: {link}"
            if file in pages:
                assert anchor in pages[file].anchors, (
                    f"{path.relative_to(site)}: {link}"
                )


@pytest.mark.spawn
def test_every_key_of_the_shipped_yamls_is_in_the_reference(site: Path) -> None:
    def keys(values: dict) -> Iterator[str]:
        for key, value in values.items():
            yield key
            if isinstance(value, dict) and key != "options":
                yield from keys(value)

    page = (site / "reference/configuration/index.html").read_text()
    for path in (ROOT / "projects").rglob("*.yaml"):
        for key in keys(yaml.safe_load(path.read_text())):
            assert f">{key}<" in page or f".{key}<" in page or key == "includes", (
                f"{path}: {key}"
            )


@pytest.mark.spawn
def test_every_option_of_every_command_is_in_the_reference(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (site / "reference/commands/index.html").read_text()
    for name in COMMANDS:
        assert f'id="mmpt-{name}"' in page
        assert main([name, "--help"]) == 0
        for option in re.findall(
            r"^ +(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE
        ):
            assert option in page, f"mmpt {name} {option}"


@pytest.mark.spawn
def test_every_public_name_has_an_entry(site: Path) -> None:
    for name in (
        "endtasks",
        *(stub.parent.name for stub in (ROOT / "mmpt").glob("*/__init__.pyi")),
    ):
        page = (site / "reference" / name / "index.html").read_text()
        for public in importlib.import_module(f"mmpt.{name}").__all__:
            assert re.search(rf'id="mmpt\.{name}\.[\w.]*\b{public}"', page), (
                f"mmpt.{name}.{public}"
            )


@pytest.mark.spawn
def test_documents_of_the_root_have_pages(site: Path) -> None:
    for document, page in (
        ("DATASET.md", "guides/data"),
        ("CHANGELOG.md", "changelog"),
    ):
        title = re.search(r"^# (.+)$", (ROOT / document).read_text(), re.MULTILINE)
        assert title
        assert f">{title[1]}<" in (site / page / "index.html").read_text()


def commands() -> list[str]:
    """Returns the commands in the shell code of the pages."""
    found = []
    for path in GUIDES:
        blocks = re.findall(
            r"^```bash\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL
        )
        for line in "\n".join(blocks).splitlines():
            found += re.findall(r"mmpt [a-z][^\"]*", line)
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_pages_has_its_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    shown = help_of(words[1:], capsys)
    for word in words[2:]:
        if word.startswith("--"):
            assert word in shown


LAUNCHED = [words for words in map(shlex.split, commands()) if words[1] == "train"]


@pytest.mark.parametrize(
    "words", [words for words in LAUNCHED if (ROOT / words[2]).exists()], ids=" ".join
)
def test_every_launch_command_of_the_pages_resolves(
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    assert main([*words[1:], "--dryrun"]) == 0
    assert "launching " in capsys.readouterr().out
