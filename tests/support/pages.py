"""Parts of the documentation that commands write."""

from pathlib import Path


def write_marked(path: Path, name: str, text: str) -> None:
    """Replaces the text between the marks `<!-- name -->` and `<!-- end of name -->` of a page.

    Args:
        text: complete lines.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, begin, rest = path.read_text().partition(begin)
    _, end, after = rest.partition(end)
    assert end, f"{path} has no marks for {name}"
    path.write_text(f"{before}{begin}{text}{end}{after}")
