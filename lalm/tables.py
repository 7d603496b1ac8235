"""How commands show tables: whole in a file, and as paragraphs on a terminal that is too narrow for one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FILE_COLUMNS = 1000
"""Characters a line where no terminal shows them and nobody set COLUMNS: a row of a table is one line."""

ELLIPSIS = "\u2026"
"""What rich puts where it cuts a word."""


def table_console() -> Console:
    """The console that tables are printed on."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=FILE_COLUMNS)


def print_table(console: Console, table: Table) -> None:
    """Prints a table; where its lines are too short for the longest words, a paragraph for each row instead: rich would
    cut the words, and numbers with them. Empty cells are left out."""
    from rich.padding import Padding
    from rich.table import Table

    unbound = console.options.update(max_width=FILE_COLUMNS)
    fits = console.measure(table, options=unbound).minimum <= console.width
    if fits and not any(ELLIPSIS in segment.text for segment in console.render(table)):
        console.print(table)
        return
    if table.title:
        console.print(table.title, style="italic", highlight=False)
    columns = [list(column.cells) for column in table.columns]
    for number, row in enumerate(table.rows):
        first, *cells = (column[number] for column in columns)
        if first:
            console.print(first, style="bold", highlight=False)
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", overflow="fold")
        grid.add_column(overflow="fold")
        for column, cell in zip(table.columns[1:], cells, strict=True):
            if cell:
                grid.add_row(column.header, cell)
        console.print(Padding(grid, (0, 0, 1, 4), expand=False), style=row.style, highlight=False)
    if table.caption:
        console.print(table.caption, style="dim italic", highlight=False)
