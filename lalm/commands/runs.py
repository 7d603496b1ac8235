"""`lalm runs`: lists trained and half-trained runs, and shows how two differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lalm.tables import print_table, table_console

if TYPE_CHECKING:
    from rich.table import Table

    from lalm.training.run_list import RunSummary

RUNS = Path("runs")


def runs(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN RUN | FOLDER]",
            help="Two runs to compare, or a folder of runs (default: runs).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the runs of a folder; with two runs, show where their recipes and results differ."""

    from lalm.errors import RecipeError
    from lalm.training.run_list import find_runs, read_run, read_runs

    console, given = table_console(), paths or [RUNS]
    if len(given) == 2:
        first, second = (read_run(path) for path in given)
        for table in compare_tables(first, second):
            print_table(console, table)
        return
    if len(given) > 2:
        raise RecipeError(f"lalm runs compares two runs, got {len(given)}. Give two, or a folder of runs.")
    found = [given[0]] if (given[0] / "recipe.yaml").is_file() else find_runs(given[0])
    if not found:
        console.print(f"No runs in {given[0]}. Train one with: lalm train RECIPE", highlight=False)
        return
    summaries, problems = read_runs(found)
    print_table(console, list_table(summaries))
    for problem in problems:
        console.print(problem, style="yellow", markup=False, highlight=False)


def list_table(summaries: list[RunSummary]) -> Table:
    """One row a run."""
    from rich.table import Table

    table = Table()
    table.add_column("run", no_wrap=True)
    for name in ("recipe", "stages done"):
        table.add_column(name, overflow="fold")
    for name in ("steps", "last loss", "training", "measured"):
        table.add_column(name, justify="right")
    for run in summaries:
        measured = (
            f"{sum(run.scores.values()) / len(run.scores):.3f} over {len(run.scores)} tasks" if run.scores else ""
        )
        row = (run.progress, run.steps, run.last_loss, clock(run.training_seconds), measured)
        table.add_row(run.path.name, run.recipe.name, *map(cell, row))
    return table


def compare_tables(first: RunSummary, second: RunSummary) -> list[Table]:
    """Settings that differ, and all that was measured."""
    from rich.table import Table

    from lalm.training.run_list import measured_differences, recipe_differences

    tables = []
    for title, items in (
        ("Settings that differ", recipe_differences(first, second)),
        ("Measured", measured_differences(first, second)),
    ):
        table = Table(title=title, title_justify="left")
        table.add_column("", no_wrap=True)
        table.add_column(str(first.path), overflow="fold")
        table.add_column(str(second.path), overflow="fold")
        for name, old, new in items:
            table.add_row(name, cell(old), cell(new))
        tables.append(table)
    return tables


def cell(value: Any) -> str:
    """A number with four digits, anything else as it is; empty for nothing."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
