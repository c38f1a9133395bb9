"""Tables of the commands, on terminals of any width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from limbeck.training.display import wide_console

LONG = 20  # characters of a word that may be broken, such as a path


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None, console: Console | None = None
) -> None:
    """Print rows of cells below their headings; where words would be broken, each row as a paragraph.

    Args:
        head: A heading a column.
        rows: Cells; the first says what a row is of.
        title: Stands above.
        console: That of a run, while its live lines are there.
    """
    console = console or wide_console()
    if title is not None:
        console.print(title, markup=False)
    columns = list(zip(head, *rows, strict=True))
    whole = [max(map(len, column)) for column in columns]
    widths = [max(min(LONG, len(word)) for cell in column for word in (cell.split() or [""])) for column in columns]
    spare = console.width - sum(widths) - 3 * len(head) - 1  # but for the lines between, and a space beside each
    if spare < 0:
        for name, *cells in rows:
            paragraph = "; ".join(f"{column} {cell}" for column, cell in zip(head[1:], cells, strict=True) if cell)
            console.print(name, Padding(paragraph, (0, 0, 0, 2)), sep="\n", markup=False)
        return
    table = Table()
    for _ in range(spare):
        neediest = max(range(len(head)), key=lambda place: whole[place] - widths[place])
        widths[neediest] += whole[neediest] > widths[neediest]
    for column, width in zip(head, widths, strict=True):
        table.add_column(column, overflow="fold", width=width)
    for row in rows:
        table.add_row(*row)
    console.print(table)
