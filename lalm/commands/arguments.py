"""The arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_RECIPE_HELP = "A recipe file, or the name of a shipped one (`lalm recipes list`)."
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help=_RECIPE_HELP)]
OptionalRecipeArgument = Annotated[str | None, typer.Argument(metavar="RECIPE", help=_RECIPE_HELP, show_default=False)]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/quickstart.")]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[a.b=value]...", help="Changes of the recipe, such as stages.align.steps=50.", show_default=False
    ),
]
TinyOption = Annotated[
    bool, typer.Option("--tiny", help="Its tiny twin: random weights, the same parts and stages, seconds on a CPU.")
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the GPU by default where there is one.")]
