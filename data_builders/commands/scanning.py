"""`lalm data sources` and `lalm data scan`: where recordings come from, and what a folder of one holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_builders.commands.errors import one_line_errors
from lalm.tables import print_table, table_console

SHOWN_PROBLEMS = 20


def sources(
    name: Annotated[str | None, typer.Argument(help="One of them: what to download, and its layout.")] = None,
) -> None:
    """List the packaged sources and the corpora that a recipe may name, with licence and page."""
    from rich.table import Table

    with one_line_errors():
        from data_builders.corpora import CORPORA, corpus_named
        from data_builders.sources import SOURCES, source

        console = table_console()
        if name is not None and name not in SOURCES:
            corpus = corpus_named(name)
            console.print(f"{corpus.name} ({corpus.kind}), {corpus.licence}", markup=False)
            console.print(f"{corpus.homepage}\nDownload: {corpus.download}", markup=False, highlight=False)
            console.print(f"In the folder: {', '.join(corpus.layout) or 'any files'}", markup=False, highlight=False)
            return
        packaged = Table("packaged (fetched by lalm data fetch)", "packages")
        for key in (name,) if name else SOURCES:
            packaged.add_row(key, ", ".join(package.name for package in source(key).PACKAGES))
        print_table(console, packaged)
        if name is None:
            table = Table("corpus (a folder of yours)", "kind", "licence", "page")
            for corpus in sorted(CORPORA.values(), key=lambda corpus: (corpus.kind, corpus.name)):
                table.add_row(corpus.name, corpus.kind, corpus.licence, corpus.homepage)
            print_table(console, table)


def scan(
    name: Annotated[str, typer.Argument(help="The corpus; lalm data sources lists them.")],
    folder: Annotated[Path, typer.Argument(help="Its folder, in its authors' layout.")],
    max_malformed: Annotated[int, typer.Option(help="Malformed rows after which reading stops.", min=0)] = 1000,
    headers: Annotated[bool, typer.Option(help="Open the header of every recording.")] = True,
    problems: Annotated[Path | None, typer.Option(help="Write the problems there, one a line.")] = None,
) -> None:
    """Read a corpus in a folder: counts, lengths, splits, facts, licences, and every problem with line and column."""
    from rich.table import Table

    with one_line_errors():
        from data_builders import scanning

        console = table_console()
        found = scanning.scan(name, folder, max_malformed=max_malformed, open_audio=headers)
        table = Table(show_header=False)
        table.add_row("recordings", str(found.recordings))
        if found.seconds:
            lengths = f"{found.seconds / 3600:.3f} h, {found.shortest:.2f} to {found.longest:.2f} s each"
            table.add_row("audio", lengths)
        for title, counts in (("splits", found.splits), ("facts", found.facts), ("licences", found.licences)):
            table.add_row(title, ", ".join(f"{key} {count}" for key, count in counts.most_common()))
        table.add_row("malformed rows", str(found.malformed))
        table.add_row("rows left out", str(found.left_out))
        table.add_row("unreadable audio", str(found.unreadable))
        print_table(console, table)
        for problem in found.problems[:SHOWN_PROBLEMS]:
            console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
        if problems is not None:
            problems.write_text("".join(f"{problem}\n" for problem in found.problems), encoding="utf-8")
        if not found.recordings:
            raise typer.Exit(1)
