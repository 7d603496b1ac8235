"""`lalm recipes`: the recipes that come with lalm, one of them in full, the schema, and how two differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lalm.commands.arguments import OverridesArgument, RecipeArgument

app = typer.Typer(no_args_is_help=True, help="Recipes: list, show, compare, and the schema for editors.")


@app.command("list")
def list_recipes() -> None:
    """List the recipes that come with lalm."""
    from rich.console import Console
    from rich.table import Table

    from lalm.recipe.load import load_recipe
    from lalm.resources import list_shipped

    table = Table()
    table.add_column("recipe", no_wrap=True)
    for name in ("what it is", "encoders", "projector", "language model"):
        table.add_column(name, overflow="fold")
    for name in (Path(file).stem for file in list_shipped("recipes")):
        recipe = load_recipe(name)
        encoders = "\n".join(f"{encoder.name} ({encoder.base})" for encoder in recipe.encoders)
        table.add_row(name, recipe.description, encoders, recipe.projector.name, recipe.language_model.base)
    Console().print(table)


@app.command()
def show(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Every setting, defaults included.")] = False,
) -> None:
    """Print a recipe: the file as it was written, or with --resolved (and with overrides) every setting."""
    from rich.console import Console
    from rich.syntax import Syntax

    from lalm.recipe.load import find_recipe, load_recipe, recipe_yaml

    loaded = load_recipe(recipe, overrides or ())
    text = recipe_yaml(loaded) if resolved or overrides else find_recipe(recipe).read_text(encoding="utf-8")
    console = Console()
    if console.is_terminal:
        console.print(Syntax(text, "yaml", background_color="default"))
    else:
        typer.echo(text, nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe file, for an editor's completion."""
    import json

    from lalm.recipe.load import recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=2))


@app.command()
def diff(before: RecipeArgument, after: RecipeArgument) -> None:
    """Show every setting in which two recipes (or runs) differ, defaults included."""
    from rich.console import Console
    from rich.table import Table

    from lalm.recipe.diff import diff_recipes
    from lalm.recipe.load import load_recipe

    differences = diff_recipes(load_recipe(before), load_recipe(after))
    if not differences:
        typer.echo("The two recipes are the same.")
        return
    table = Table()
    table.add_column("setting", no_wrap=True)
    table.add_column(before, overflow="fold")
    table.add_column(after, overflow="fold")
    for path, old, new in differences:
        table.add_row(path, str(old), str(new))
    Console().print(table)
