"""`lalm check`: validates a recipe, resolves names and sizes, and shows what it would train. Loads no weights."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lalm.commands.arguments import OptionalRecipeArgument, OverridesArgument, TinyOption
from lalm.tables import print_table, table_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lalm.recipe.schema import Recipe
    from lalm.training.recipe_plan import RecipePlan


def check(
    recipe: OptionalRecipeArgument = None,
    overrides: OverridesArgument = None,
    tiny: TinyOption = False,
    machine: Annotated[
        list[str] | None,
        typer.Option(metavar="NxGB", help="Memory and time on 1x24, 8x80 or 4x8x80 (nodes) GPUs; repeatable."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every shipped recipe, a line each.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Count again what was counted before and has not changed since.")
    ] = False,
) -> None:
    """Check a recipe without loading weights: sizes, audio positions, what trains in each stage, memory, data.

    Needs no network for the base models that the shipped recipes name. A published system is compared with what its
    paper prints. What is counted is kept in the cache until the recipe, its files or the libraries change.
    """
    if (recipe is None) != every:
        raise typer.BadParameter("give one, or --all for every shipped recipe.", param_hint="RECIPE")
    if every and machine:
        raise typer.BadParameter("wants one recipe.", param_hint="--machine")
    problems = (
        check_all(tiny=tiny, fresh=fresh)
        if recipe is None
        else check_one(recipe, overrides or (), machine or (), tiny=tiny, fresh=fresh)
    )
    if problems:
        raise typer.Exit(2)


def check_one(
    name: str, overrides: Sequence[str], machines: Sequence[str], *, tiny: bool = False, fresh: bool = False
) -> list[str]:
    """Prints all that is known of one recipe; returns why it cannot train."""
    from rich.console import Console

    from lalm.commands.check_tables import machines_table, parts_table, rates_table, sizes_table, stages_table
    from lalm.model.published_sizes import compare_sizes
    from lalm.recipe.load import load_recipe
    from lalm.training.recipe_plan import plan_recipe

    recipe = load_recipe(name, overrides, tiny=tiny)
    missing = missing_sources(recipe)
    console = table_console()
    planner = None
    with Console(stderr=True).status("Checking ...") as status:
        if machines:
            from lalm.data.state_cache import caches_states
            from lalm.model.machines import MachinePlanner, parse_machine

            wanted = [parse_machine(text) for text in machines]
        plan = plan_recipe(recipe, has_data=not missing, fresh=fresh, report=status.update)
        if machines:
            planner = MachinePlanner(recipe, live_encoder=not caches_states(recipe), shapes=plan.shapes)
    on_machines = machines_table(planner, wanted) if planner else None
    console.print(f"[bold]{recipe.name}[/bold]  {recipe.description}\n", highlight=False)
    stages = stages_table(recipe, plan.memory, plan.model.dtype, knows_data=bool(plan.shapes))
    comparisons = compare_sizes(recipe, plan.model)
    sizes = sizes_table({recipe.name: comparisons}) if comparisons else None
    for table in filter(None, (rates_table(plan.model), parts_table(plan.model), stages, on_machines, sizes)):
        print_table(console, table)
        console.print()
    problems = list(plan.model.problems)
    if not missing:
        console.print(plan.data, highlight=False)
    elif is_expected(recipe, name, overrides):
        console.print(where_data_comes_from(recipe, missing), style="yellow", highlight=False, soft_wrap=True)
    else:
        problems += [f"data.sources: {path}: no such file of records" for path in missing]
    if packages := missing_packages(recipe):
        message = f"Base models are not here yet. Fetch them with: lalm models fetch {' '.join(packages)}"
        console.print(message, style="yellow", highlight=False, soft_wrap=True)
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False)
    if not problems:
        console.print("The recipe can be trained.", style="green")
    return problems


def check_all(*, tiny: bool = False, fresh: bool = False) -> list[str]:
    """Prints a line for every shipped recipe; returns why those cannot train that cannot."""
    from rich.console import Console
    from rich.progress import track

    from lalm.commands.check_tables import all_table
    from lalm.errors import LalmError
    from lalm.recipe.load import load_recipe
    from lalm.resources import list_shipped
    from lalm.training.recipe_plan import is_planned, plan_recipe

    errors = Console(stderr=True)
    rows: dict[str, tuple[RecipePlan | None, float]] = {}
    recipes, problems = {}, []
    for name in (Path(file).stem for file in list_shipped("recipes")):
        try:
            recipes[name] = load_recipe(name, tiny=tiny)
        except LalmError as error:
            problems.append(f"{name}: {error}")
            rows[name] = None, 0.0
    if fresh or not all(is_planned(recipe) for recipe in recipes.values()):
        with errors.status("Reading torch and transformers ..."):
            importlib.import_module("lalm.model.memory_plan")  # once, and not the first recipe's time
    for name, recipe in track(recipes.items(), "check", total=len(recipes), console=errors, transient=True):
        started, plan = time.perf_counter(), None
        try:
            plan = plan_recipe(recipe, has_data=not missing_sources(recipe), fresh=fresh)
            problems += [f"{name}: {problem}" for problem in plan.model.problems]
        except LalmError as error:
            problems.append(f"{name}: {error}")
        rows[name] = plan, time.perf_counter() - started
    console = table_console()
    print_table(console, all_table(rows))
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False)
    if not problems:
        console.print(f"All {len(rows)} recipes can be trained.", style="green")
    return problems


def is_expected(recipe: Recipe, name: str, overrides: Sequence[str]) -> bool:
    """Whether missing data is no fault of the recipe: it can be built, or is the user's to give."""
    return bool(recipe.data.build) or is_to_be_given(recipe) or is_as_shipped(name, overrides)


def where_data_comes_from(recipe: Recipe, missing: Sequence[str]) -> str:
    """How to come by the data that is not there."""
    if recipe.data.build:
        command = f"lalm data build {recipe.data.build} -o {recipe.data.folder}"
        return f"The data is not there yet ({missing[0]}). Make it with: {command}"
    files = ", ".join(dict.fromkeys(str(source.records) for source in recipe.data.sources.values()))
    return f"The records are yours to give: data.folder=FOLDER with {files}, or --tiny to try the stages without."


def is_to_be_given(recipe: Recipe) -> bool:
    """Whether the recipe is a published system's, or a tiny twin, whose data folder nobody has named yet."""
    is_of_a_system = recipe.system is not None or recipe.data.folder.parts[:2] == ("data", "tiny")
    return is_of_a_system and not recipe.data.folder.exists()


def is_as_shipped(recipe: str, overrides: Sequence[str]) -> bool:
    """Whether a shipped recipe is named and no data is: what it names stands for the user's own."""
    from lalm.resources import list_shipped

    names_data = any(override.startswith(("data.", "data=")) for override in overrides)
    return (
        recipe in {form for file in list_shipped("recipes") for form in (Path(file).stem, f"recipes/{file}")}
        and not names_data
    )


def missing_sources(recipe: Recipe) -> list[str]:
    """Files of records that the recipe names and that do not exist."""
    paths = [recipe.data.folder / source.records for source in recipe.data.sources.values()]
    return [str(path) for path in paths if not path.exists()]


def missing_packages(recipe: Recipe) -> list[str]:
    """Names of the packaged base models that the recipe names and that are not fetched."""
    from lalm.resources import PACKAGE_PREFIX, is_at_hand

    bases = dict.fromkeys([*(encoder.base for encoder in recipe.encoders), recipe.language_model.base])
    packaged = [base for base in bases if base.startswith(PACKAGE_PREFIX)]
    return [base.removeprefix(PACKAGE_PREFIX) for base in packaged if not is_at_hand(base)]
