"""Tables that commands print: with colours and wrapped cells in a terminal, else as plain lines."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = "  "


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    styles: Mapping[str, str] | None = None,
) -> None:
    """Prints a table. A terminal wraps long cells; a file gets one aligned line per row.

    Args:
        header: names of the columns.
        rows: cells of each row.
        styles: text of a cell in the first column -> its style, such as "red".
    """
    console = Console()
    if not console.is_terminal:
        columns = zip(header, *rows, strict=True)
        widths = [max(map(len, column)) for column in columns]
        for row in (header, *rows):
            cells = map(str.ljust, row, widths)
            print(GAP.join(cells).rstrip())
        return
    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for first, *others in rows:
        style = (styles or {}).get(first, "")
        table.add_row(Text(first, style), *map(Text, others))
    console.print(table)
