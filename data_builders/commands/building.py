"""`lalm data build`: a declared set from recordings to sealed shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_builders.commands.errors import one_line_errors


def build(
    recipe: Annotated[
        str, typer.Argument(help="A recipe: quickstart, another shipped name, or a YAML file.")
    ] = "quickstart",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The folder to build; data/NAME by default.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="In place of the recipe's. The same seed gives the same set.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes. Changes the time, not the set.", min=1)] = 2,
    shard: Annotated[
        str, typer.Option(help="i/n: write only this machine's share of the clips, as one job of a SLURM array.")
    ] = "0/1",
    ray: Annotated[
        str | None,
        typer.Option(help="Run on a Ray cluster: its address, auto, or local. OUT must be on a shared disk."),
    ] = None,
) -> None:
    """Build a set by its recipe: clips, records or shards, card, funnel, notice, manifest. A stopped build goes on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with one_line_errors():
        from data_builders.jobs import Processes, Runner, Share
        from data_builders.pipeline import build_set
        from data_builders.recipe_reading import load_data_recipe

        declared = load_data_recipe(recipe, {} if seed is None else {"seed": seed})
        runner: Runner = Processes(workers)
        if ray is not None:
            from data_builders.ray_runner import RayData

            runner = RayData(ray)
        console = Console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("jobs", total=None)
            built = build_set(
                declared,
                out or Path("data") / declared.name,
                runner=runner,
                share=Share.parse(shard),
                report=lambda line: console.print(line, highlight=False),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        if built.fresh and built.whole:
            console.print(
                f"{built.folder}/README.md is its card. {len(built.skipped)} recordings were left out (manifest.json)."
            )
