"""`lalm convert`: the released weights of a published system become a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lalm.commands.arguments import OverridesArgument


def convert(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="A published system's recipe, such as salmonn_13b.")],
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The authors' file, such as salmonn_v1.pth.")
    ],
    overrides: OverridesArgument = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The folder to write.")] = None,
) -> None:
    """Turn the authors' released weights into a run folder that chat, evaluate and train take.

    The base models (encoders, language model) come from where the recipe says: a released checkpoint holds only what
    was trained on them. An encoder that was trained (LTU, GAMA) comes from the checkpoint, which the run keeps needing.
    Every tensor must be there, nothing may be left over, every shape must fit.
    """
    from rich.console import Console

    from lalm.conversion.convert import convert_checkpoint
    from lalm.errors import CheckpointError
    from lalm.recipe.load import load_recipe

    recipe = load_recipe(system, overrides or ())
    folder = output or Path("runs") / recipe.name
    if not checkpoint.is_file():
        raise CheckpointError(f"{checkpoint}: no such file. Give the checkpoint that the authors released.")
    convert_checkpoint(recipe, checkpoint, folder)
    Console().print(f"{folder}: {checkpoint} as a run. Try: lalm chat {folder}", highlight=False)
