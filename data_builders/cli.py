"""The data commands: `lalm data ...`, also installed as `lalm-data`. What a command needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_builders.commands.errors import one_line_errors as _errors
from data_builders.commands.exchanging import export_records, formats, import_records
from data_builders.commands.filtering import decontaminate, dedupe, filter_records, register
from data_builders.commands.sealing import export_to_shards, validate
from data_builders.commands.splitting import split
from data_builders.commands.viewing import view

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Fetch recordings and build audio question-answer sets."
)

SETS = ("quickstart",)
_Set = Annotated[str, typer.Argument(help="The set: quickstart.", metavar="SET")]


@app.command()
def fetch(name: _Set = "quickstart") -> None:
    """Fetch the recordings of a set by Debian package name; what is cached is not fetched again."""
    from rich.console import Console
    from rich.table import Table

    with _errors():
        _known(name)
        from data_builders.pipeline import fetch_quickstart

        console = Console()
        fetched = fetch_quickstart(report=lambda line: console.print(line, highlight=False))
        table = Table("package", "version", "files", "sha256")
        for package in fetched.values():
            table.add_row(package.name, package.version, str(len(package.members)), package.sha256[:12])
        console.print(table)


@app.command()
def build(
    name: _Set = "quickstart",
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to build.")] = Path("data/quickstart"),
    size: Annotated[str, typer.Option(help="quickstart, or full: everything.")] = "quickstart",
    seed: Annotated[int, typer.Option(help="The same seed gives the same set.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that write clips. Changes the time, not the set.", min=1)] = 2,
) -> None:
    """Build a set: records for train, validation and test, clips, card, notice and manifest."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with _errors():
        _known(name)
        from data_builders.pipeline import build_quickstart

        console = Console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("clips", total=None)
            built = build_quickstart(
                out,
                size=size,
                seed=seed,
                workers=workers,
                report=lambda line: console.print(line, highlight=False),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        if built.fresh:
            console.print(
                f"{built.folder}/README.md is its card. {len(built.skipped)} recordings were left out (manifest.json)."
            )


@app.command()
def stats(file: Annotated[Path, typer.Argument(help="Records: .jsonl, .parquet or .csv.")]) -> None:
    """Count the tasks, answers and clips of a file of records, and list its broken rows."""
    from rich.console import Console
    from rich.table import Table

    with _errors():
        from data_builders.stats import task_stats
        from lalm.data.records import scan_records

        console = Console()
        records, problems = scan_records(file)
        table = Table("task", "records", "clips", "answers", "commonest answer", "share", "chance")
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
        console.print(table)
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
for _command in (dedupe, decontaminate, formats, register, split, validate, view):
    app.command()(_command)


def main() -> None:
    """The `lalm-data` command."""
    app()


def _known(name: str) -> None:
    from lalm.errors import DataError

    if name not in SETS:
        raise DataError(f"set: '{name}' is not known. Accepted: {', '.join(SETS)}.")
