"""`lalm data import`, `lalm data export` and `lalm data formats`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_builders.commands.errors import one_line_errors
from lalm.tables import print_table, table_console

if TYPE_CHECKING:
    from data_builders.formats.exchange import Exchanged

SHOWN_PROBLEMS = 20
MAX_PROBLEMS = 100

_Form = Annotated[str, typer.Argument(help="A name of `lalm data formats`.", metavar="FORMAT")]
_Ceiling = Annotated[int, typer.Option(help="Broken rows that are left out before the run stops.", min=0)]


def formats() -> None:
    """List the formats that `import` and `export` know, and what each of them holds."""
    from rich.table import Table

    from data_builders.formats import FORMATS

    table = Table("format", "what it is", "file", "what it holds", "layout from")
    for form in FORMATS.values():
        table.add_row(form.name, form.title, form.container, form.holds, form.source)
    print_table(table_console(), table)


def import_records(
    form: _Form,
    file: Annotated[Path, typer.Argument(help="The file to read.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for records.jsonl.")],
    clips: Annotated[
        Path | None, typer.Option(help="The folder that clips are named from. Without it, that of FILE.")
    ] = None,
    strip: Annotated[str, typer.Option(help="A beginning to take off each clip's name.")] = "",
    check: Annotated[bool, typer.Option(help="Open every clip.")] = True,
    max_problems: _Ceiling = MAX_PROBLEMS,
) -> None:
    """Turn a published set, or a CSV of your own recordings, into records; broken rows are listed and left out."""
    with one_line_errors():
        from data_builders.formats import format_named
        from data_builders.formats.exchange import RECORDS_NAME, import_file

        done = import_file(
            format_named(form), file, out, clips=clips, strip=strip, check_clips=check, max_problems=max_problems
        )
        _report(done, out / RECORDS_NAME)


def export_records(
    form: _Form,
    records: Annotated[Path, typer.Argument(help="Records: .jsonl, .parquet or .csv.", metavar="SET")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write.")],
    clips: Annotated[
        Path | None, typer.Option(help="The folder to name clips from. Without it, that of the records.")
    ] = None,
    plain: Annotated[bool, typer.Option(help="Write the published keys only; what they do not hold is lost.")] = False,
    only_whole: Annotated[bool, typer.Option(help="Leave out conversations that the format cannot say.")] = False,
    max_problems: _Ceiling = MAX_PROBLEMS,
) -> None:
    """Write records in another format; imported again they are the same records, unless written --plain."""
    with one_line_errors():
        from data_builders.formats import format_named
        from data_builders.formats.exchange import export_file

        done = export_file(
            format_named(form),
            records,
            out,
            clips=clips,
            plain=plain,
            only_whole=only_whole,
            max_problems=max_problems,
        )
        for what, count in sorted(done.missed.items()):
            verb = "left out" if only_whole else "in the extension only"
            typer.echo(f"{count} records: not all of their {what} can be said in {form} ({verb})")
        _report(done, out)


def _report(done: Exchanged, path: Path) -> None:
    for problem in done.problems[:SHOWN_PROBLEMS]:
        typer.secho(problem, fg="red", err=True)
    typer.echo(f"{path}: {done.count} records; {len(done.problems)} rows left out")
    if not done.count:
        raise typer.Exit(1)
