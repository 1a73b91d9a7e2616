"""The Markdown of the repository's documents is converted to Markdown of the site."""

import importlib.util
from types import ModuleType

import pytest

from tests.support.paths import ROOT

pytest.importorskip("mkdocs", reason="the site needs the extra `docs`")
DOCUMENT = """# Title

## First part
- `# code` is no heading

```python
# neither is this
```

### Within
text

## Second part
"""


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """The hook, which is a file that mkdocs loads by its path."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs/hooks/pages.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_section_ends_at_the_next_heading_of_its_level(pages: ModuleType) -> None:
    section = pages.read_section(DOCUMENT, "first-part", "document.md")
    assert section.startswith("- `# code`")
    assert "# neither" in section
    assert section.endswith("### Within\ntext\n\n")


def test_a_missing_section_is_reported(pages: ModuleType) -> None:
    with pytest.raises(pages.PluginError, match="has no section #third-part"):
        pages.read_section(DOCUMENT, "third-part", "document.md")


@pytest.mark.parametrize(
    ("text", "separated"),
    [
        ("Text\n- one\n- two\n", "Text\n\n- one\n- two\n"),
        ("Text\n1. one\n", "Text\n\n1. one\n"),
        ("- one\n- two\n", "- one\n- two\n"),
        ("- one\n  more\n- two\n", "- one\n  more\n- two\n"),
        ("## Title\n- one\n", "## Title\n- one\n"),
        ("Text\n\n- one\n", "Text\n\n- one\n"),
    ],
)
def test_a_list_is_separated_from_the_text_before_it(
    pages: ModuleType, text: str, separated: str
) -> None:
    assert pages.separate_lists(text) == separated


def test_code_is_not_changed(pages: ModuleType) -> None:
    text = "a\n```\na\n```\na\n"
    assert pages.outside_code(text, str.upper) == "A\n```\na\n```\nA\n"


def test_shell_cells_of_a_notebook_become_shell_code(pages: ModuleType) -> None:
    nbformat = pytest.importorskip("nbformat")
    new_cell = nbformat.v4.new_code_cell
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        new_cell("!mmpt demo"),
        new_cell("x = 1"),
    ]
    text = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
    assert pages.read_notebook(text) == (
        "# Title\n\n```bash\nmmpt demo\n```\n\n```python\nx = 1\n```\n"
    )
