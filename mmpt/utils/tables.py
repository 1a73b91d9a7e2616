"""Formats tables as text, with rich, and as Markdown."""

from collections.abc import Sequence
from io import StringIO
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

GAP = 3
"""Number of spaces between two columns."""


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in plain text. The first column is left-aligned, the others right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, title in enumerate(header):
        justify: Literal["left", "right"] = "left" if column == 0 else "right"
        table.add_column(title, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    text = StringIO()
    console = Console(
        file=text, width=10_000, markup=False, emoji=False, highlight=False
    )
    console.print(table)
    lines = text.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table. The columns are aligned as in `text_table`."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = []
    for row in (header, rule, *rows):
        cells = " | ".join(row).replace("\n", " ")
        lines.append(f"| {cells} |")
    return "\n".join(lines)
