"""`lalm train`: trains the stages of a recipe into a run folder; the same command again resumes."""

from __future__ import annotations

import gc
import shlex
import sys
from typing import Annotated

import typer

from lalm.commands.arguments import OverridesArgument, RecipeArgument, TinyOption

INTERRUPTED = 130


def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    tiny: TinyOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and one sample of each stage; train nothing.")
    ] = False,
    stage: Annotated[str | None, typer.Option(help="Train this stage only.")] = None,
    from_stage: Annotated[str | None, typer.Option("--from", help="The first stage to train.")] = None,
    until: Annotated[str | None, typer.Option(help="The last stage to train.")] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with what the run folder holds; --no-resume trains the stages anew.")
    ] = True,
    allow_change: Annotated[
        list[str] | None, typer.Option(help="A part of the recipe in which a resumed run may differ; repeatable.")
    ] = None,
    from_run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Start from the weights of this finished run (the key `init`).")
    ] = None,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Evaluate the run when its last stage is done.")] = False,
) -> None:
    """Train a recipe. A stopped run goes on where it was when the same command is given again.

    With --tiny, records are invented (noise, nothing to learn) where data.folder does not exist.
    """
    from lalm.recipe.load import load_recipe

    loaded = load_recipe(recipe, [*(overrides or ()), *([f"init={from_run}"] if from_run else ())], tiny=tiny)
    if tiny and not loaded.data.folder.exists():
        from lalm.data.invented import write_invented

        write_invented(loaded)
        typer.echo(f"{loaded.data.folder}: clips of noise and records about them were invented.", err=True)
    from lalm.evaluation.runner import evaluate_run
    from lalm.training.train import run_recipe

    gc.freeze()  # What was imported stays: the collections at the ends of stages need not look through it.
    try:
        run_recipe(
            loaded,
            resume=resume,
            stage=stage,
            from_stage=from_stage,
            until=until,
            dry_run=dry_run,
            allow_changes=tuple(allow_change or ()),
            evaluate=evaluate_run if evaluate else None,
        )
    except KeyboardInterrupt:
        again = [argument for argument in sys.argv[1:] if argument != "--no-resume"]
        typer.secho(f"\nStopped. Resume by: lalm {shlex.join(again)}", fg="yellow", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        gc.unfreeze()
