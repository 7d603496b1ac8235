"""`lalm recipes`: the recipes that come with lalm, one of them in full, the papers' sizes, the schema, differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lalm.commands.arguments import OverridesArgument, RecipeArgument, TinyOption
from lalm.tables import print_table, table_console

if TYPE_CHECKING:
    from lalm.recipe.schema import Recipe

app = typer.Typer(no_args_is_help=True, help="Recipes: list, show, sizes, compare, and the schema for editors.")


@app.command("list")
def list_recipes(
    sizes: Annotated[bool, typer.Option("--sizes", help="Count what trains; builds each without weights.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The table of published systems that the README has.")
    ] = False,
) -> None:
    """List the recipes that come with lalm: the project's own, and those of published systems."""
    from rich.table import Table

    recipes = shipped_recipes()
    if markdown:
        typer.echo(systems_markdown(recipes))
        return
    own = Table(title="The project's own", title_justify="left")
    own.add_column("recipe", no_wrap=True)
    for name in ("what it is", "encoders", "projector", "language model"):
        own.add_column(name, overflow="fold")
    systems = Table(title="Published systems", title_justify="left")
    systems.add_column("recipe", no_wrap=True)
    trainable = "trainable (last stage)" if sizes else "trainable"
    for name in ("system", "year", "encoder", "projector", "language model", trainable, "stages", "source"):
        systems.add_column(name, overflow="fold")
    for recipe in recipes:
        parts = [describe_encoders(recipe), describe_projector(recipe), recipe.language_model.base]
        if recipe.system is None:
            own.add_row(recipe.name, recipe.description, *parts)
            continue
        trained = count_trained(recipe) if sizes else ", ".join(trained_parts(recipe))
        stages = ", ".join(stage.name for stage in recipe.stages)
        system = recipe.system
        systems.add_row(recipe.name, system.title, str(system.year), *parts, trained, stages, system.paper)
    console = table_console()
    print_table(console, own)
    print_table(console, systems)


def shipped_recipes() -> list[Recipe]:
    """Every recipe that comes with lalm: the project's own, then the systems by year and name."""
    from lalm.recipe.load import load_recipe
    from lalm.resources import list_shipped

    recipes = [load_recipe(Path(file).stem) for file in list_shipped("recipes")]
    return sorted(recipes, key=lambda recipe: (recipe.system.year if recipe.system else 0, recipe.name))


def describe_encoders(recipe: Recipe) -> str:
    """Each encoder with its base, one a line."""
    return "\n".join(f"{encoder.name} ({encoder.base})" for encoder in recipe.encoders)


def describe_projector(recipe: Recipe) -> str:
    """The projector's name, and whether its vectors enter by cross-attention."""
    return recipe.projector.name + (", cross-attention" if recipe.language_model.cross_attention else "")


def trained_parts(recipe: Recipe) -> list[str]:
    """Parts that some stage trains."""
    rates = [stage.learning_rates.model_dump() for stage in recipe.stages]
    return [part for part in rates[0] if any(stage[part] is not None for stage in rates)]


def count_trained(recipe: Recipe) -> str:
    """Parameters that the last stage trains, and their share."""
    from lalm.model.plan import plan_model

    plan = plan_model(recipe)
    trained = plan.stages[-1].num_trained
    return f"{trained / 1e6:,.1f} M ({trained / plan.num_parameters:.2%})"


def systems_markdown(recipes: list[Recipe]) -> str:
    """The README's table of published systems."""
    lines = ["| recipe | system | tiny twin trained here | official weights loadable | known differences |"]
    lines.append("|---|---|---|---|---|")
    for recipe in recipes:
        if (system := recipe.system) is not None:
            cells = (
                recipe.name,
                system.title if system.paper == "none" else f"{system.title} ({system.year}, {system.paper})",
                f"yes, {len(recipe.stages)} stage{'s' * (len(recipe.stages) > 1)}",
                "no" if system.official_weights == "no" else "yes, `lalm convert`",
                "<br>".join(system.differences),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@app.command("sizes")
def list_sizes() -> None:
    """Compare the sizes that papers print with those of the recipes. Builds each without weights; needs no network."""
    from lalm.commands.check_tables import sizes_table
    from lalm.model.plan import plan_model
    from lalm.model.published_sizes import compare_sizes

    published = [recipe for recipe in shipped_recipes() if recipe.system and recipe.system.sizes]
    comparisons = {recipe.name: compare_sizes(recipe, plan_model(recipe)) for recipe in published}
    print_table(table_console(), sizes_table(comparisons))
    if not all(row.is_explained for rows in comparisons.values() for row in rows):
        raise typer.Exit(1)


@app.command()
def show(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Every setting, defaults included.")] = False,
    tiny: TinyOption = False,
) -> None:
    """Print a recipe: the file as it was written, or with --resolved (with overrides, with --tiny) every setting."""
    from rich.console import Console
    from rich.syntax import Syntax

    from lalm.recipe.load import find_recipe, load_recipe, recipe_yaml

    loaded = load_recipe(recipe, overrides or (), tiny=tiny)
    text = recipe_yaml(loaded) if resolved or overrides or tiny else find_recipe(recipe).read_text(encoding="utf-8")
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
    print_table(table_console(), table)
