"""`lalm data validate` and `lalm data export-to-shards`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from data_builders.commands.errors import one_line_errors


def validate(
    path: Annotated[Path, typer.Argument(help="A file of records, a folder of shards, or a built set.")],
    audio: Annotated[bool, typer.Option(help="Open every clip.")] = True,
) -> None:
    """Check rows, ids, clips and the digests of a manifest; lists every problem and exits with 1 if there is one."""
    with one_line_errors():
        from data_builders.validating import validate as check

        found = check(path, audio=audio)
        for problem in found.problems:
            typer.secho(problem, fg="red", err=True)
        typer.echo(
            f"{path}: {found.rows} records, {found.clips} clips, {found.files} sealed files, "
            f"{len(found.problems)} problems"
        )
        if found.problems:
            raise typer.Exit(1)


def export_to_shards(
    file: Annotated[Path, typer.Argument(help="Records: .jsonl or .parquet.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for the shards and manifest.json.")],
    form: Annotated[str, typer.Option("--format", help="parquet, or webdataset: tars with the clips in them.")] = (
        "parquet"
    ),
    rows: Annotated[int, typer.Option(help="Rows of a shard.", min=1)] = 10_000,
    workers: Annotated[int, typer.Option(help="Processes. Changes the time, not the bytes.", min=1)] = 1,
) -> None:
    """Write a file of records as shards with a manifest; started again, it writes what is missing."""
    from rich.console import Console
    from rich.progress import Progress

    with one_line_errors():
        from data_builders.row_sources import open_rows
        from data_builders.shards import write_shards

        with Progress(console=Console(), transient=True) as bar:
            task = bar.add_task("shards", total=None)
            manifest = write_shards(
                open_rows(file),
                out,
                form=form,  # type: ignore[arg-type]
                rows_per_shard=rows,
                workers=workers,
                audio_root=file.parent,
                facts=facts_beside(file),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        count = manifest["request"]["rows"]
        typer.echo(f"{out}: {count} records in {len(manifest['shards'])} shards; manifest.json seals them")


def facts_beside(file: Path) -> dict:
    """The request (seed, size, builder, packages) of the set that a file stands in, for the manifest of its shards."""
    try:
        return {"made_by": json.loads((file.parent / "manifest.json").read_text(encoding="utf-8"))["request"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
