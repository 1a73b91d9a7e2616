"""Pages that are not Markdown files of docs/: the documents of the repository, and the notebook.

Documents are read where they are, so nothing is copied. A link in a document names a file of the
repository. In the site, it leads to the page of that file. A linked file without a page is added
to the site as a download.

A page of docs/ can include a section of a document by two lines such as

    The commands are in [DATASET.md](../../DATASET.md#your-own-videos).
    <!-- include: DATASET.md#your-own-videos -->

The comment names the document from the repository's root and the section by its anchor. The site
replaces both lines by the section. GitHub hides the comment and shows the line before it.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "docs/quickstart.ipynb"
PAGES = {
    "README.md": "index.md",
    "DATASET.md": "guides/data.md",
    "pretraining.md": "guides/pretraining.md",
    "endtask.md": "guides/evaluation.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "spaces/README.md": "guides/space.md",
    NOTEBOOK: "quickstart.md",
}
"""File of the repository -> its page in the site."""
SOURCES = {page: file for file, page in PAGES.items()}

FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2[ \t]*$\n?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
# With the line of text before it, which is for readers of GitHub.
INCLUDE = re.compile(r"^(?:[^#\n].*\n)?<!-- include: (\S+?)#(\S+) -->$", re.MULTILINE)
# A line of text, and the first item of a list right after it.
TIGHT_LIST = re.compile(
    r"^(?!(?:[-*+]|\d+\.) |[ \t|#])(.+)\n(?=(?:[-*+]|\d+\.) )", re.MULTILINE
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the documents and the notebook to the pages."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source == NOTEBOOK:
            text = read_notebook(text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Fills in included sections, makes links lead to pages, and separates lists from text."""
    source = source_of(page.file.src_uri)

    def relink_from(document: str) -> Callable[[str], str]:
        return lambda text: relink(text, document, page, config, files)

    markdown = outside_code(markdown, relink_from(source))
    parts = INCLUDE.split(markdown)  # text, document, anchor, text, ...
    for place in range(1, len(parts), 3):
        document, anchor = parts[place : place + 2]
        body = read_section(
            (ROOT / document).read_text(encoding="utf-8"), anchor, document
        )
        parts[place : place + 2] = [outside_code(body, relink_from(document)), ""]
    return outside_code("".join(parts), separate_lists)


def source_of(page: str) -> str:
    """Returns the file of the repository that a page is made from."""
    return SOURCES.get(page, f"docs/{page}")


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Applies a function to everything but fenced code blocks."""
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def relink(
    text: str, document: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Makes links between files of the repository lead to the site's pages and downloads.

    Args:
        document: the file that holds `text`, from the repository's root.
        page: the page that shows it.
    """

    def replace(link: re.Match[str]) -> str:
        target, _, anchor = link[2].partition("#")
        path = os.path.normpath(
            os.path.join(os.path.dirname(document), target or document)
        )
        if not target:
            path = document
        if not (ROOT / path).is_file():
            # An address, or a page that is generated; mkdocs checks these.
            return link[0]
        uri = PAGES.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(uri) is None:
            files.append(
                File(path, str(ROOT), config.site_dir, config.use_directory_urls)
            )
            uri = path
        if uri == page.file.src_uri:
            return f"{link[1]}#{anchor}{link[3]}"
        relative = os.path.relpath(uri, os.path.dirname(page.file.src_uri))
        return f"{link[1]}{relative}{'#' + anchor if anchor else ''}{link[3]}"

    return LINK.sub(replace, text)


def separate_lists(text: str) -> str:
    """Puts an empty line before lists that follow a line of text, as Python-Markdown needs it."""
    return TIGHT_LIST.sub(r"\1\n\n", text)


def read_section(markdown: str, anchor: str, document: str) -> str:
    """Returns the section with this anchor, without its heading.

    Raises:
        PluginError: the document has no such section.
    """
    to_anchor = slugify(case="lower")
    lines: list[str] = []
    level, in_code = 0, False
    for line in markdown.splitlines(keepends=True):
        if line.startswith("```"):
            in_code = not in_code
        heading = None if in_code else re.match(r"(#+) (.+)", line)
        if heading and level and len(heading[1]) <= level:
            break  # the next section
        if heading and not level and to_anchor(heading[2], "-") == anchor:
            level = len(heading[1])
        elif level:
            lines.append(line)
    if not level:
        raise PluginError(
            f"{document} has no section #{anchor}, which a page includes."
        )
    return "".join(lines)


def read_notebook(text: str) -> str:
    """Returns a notebook as Markdown. Cells of shell commands become shell code."""
    cells = nbformat.reads(text, as_version=4).cells
    parts = []
    for cell in cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.source.startswith("!"):
            parts.append(f"```bash\n{cell.source.removeprefix('!')}\n```")
        else:
            parts.append(f"```python\n{cell.source}\n```")
    return "\n\n".join(parts) + "\n"
