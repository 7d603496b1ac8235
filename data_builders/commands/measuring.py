"""`lalm data bench`: how fast this machine builds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_builders.commands.errors import one_line_errors
from lalm.tables import print_table, table_console


def bench(
    rows: Annotated[
        int, typer.Option(help="Also build a set of so many invented rows, in whole shards of 10,000.", min=0)
    ] = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to build it.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that build it; memory is that of this one.", min=1)] = 1,
) -> None:
    """Measure questions and scenes a second on one core; with --rows, how memory and time grow with a set."""
    from rich.table import Table

    with one_line_errors():
        from data_builders.rates import build_invented, measure
        from lalm.errors import DataError

        if rows and out is None:
            raise DataError("rows: name a folder for the set with -o.")
        console = table_console()
        rates = measure()
        console.print(f"questions asked of ready metadata: {rates.asked:,.0f} rows/s on one core")
        console.print(f"validated {rates.checked:,.0f} rows/s, written as Parquet {rates.written:,.0f} rows/s")
        console.print(f"asked, validated and written: {rates.rows:,.0f} rows/s")
        console.print(f"scenes: {rates.scenes:,.0f} x real time, with effects {rates.scenes_with_effects:,.0f} x")
        if not rows or out is None:
            return
        growth = build_invented(out, rows, workers=workers)
        table = Table("rows", "processor s", "rows/s", "resident MB")
        for moment in [*growth[: -1 : max(1, len(growth) // 10)], growth[-1]]:
            table.add_row(
                f"{moment.rows:,}",
                f"{moment.seconds:.1f}",
                f"{moment.rows / max(moment.seconds, 1e-9):,.0f}",
                f"{moment.megabytes:.0f}",
            )
        print_table(console, table)
        if workers == 1:
            hours = growth[-1].seconds / growth[-1].rows * 1e8 / 3600
            console.print(f"100 million rows at this rate: {hours:.1f} processor hours")
