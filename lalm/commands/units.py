"""`lalm units`: the k-means centres that turn an encoder's states into units."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lalm.commands.arguments import OverridesArgument, RecipeArgument

app = typer.Typer(no_args_is_help=True, help="Units: the k-means centres that stand for an encoder's states.")


@app.callback()
def _units() -> None:
    """Keeps `fit` a command of its own while it is the only one."""


@app.command()
def fit(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .safetensors file; the recipe's own `centres` by default.")
    ] = None,
    states: Annotated[int, typer.Option(min=1, help="Cluster at most so many states, a seeded sample.")] = 200_000,
) -> None:
    """Fit centres on the states of a recipe's training clips, and write them where the recipe looks for them."""
    from rich.console import Console

    from lalm.errors import RecipeError
    from lalm.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    from lalm.data.units import fit_units, fitted_section
    from lalm.encoders.units import save_centres
    from lalm.model.build import default_device
    from lalm.model.decoder import choose_dtype

    index, units = fitted_section(loaded)
    path = out or (Path(units.centres) if units.centres else None)
    if path is None:
        raise RecipeError(f"encoders[{index}].units.centres names no file. Set it, or give one with --out.")
    if path.suffix != ".safetensors":
        raise RecipeError(f"{path}: centres are written as .safetensors. Give a name that ends so with --out.")
    if path.exists():
        raise RecipeError(f"{path}: is there already, and runs may rest on it. Remove it, or give another with --out.")
    console = Console()
    fitted = fit_units(
        loaded,
        device=default_device(),
        dtype=choose_dtype(loaded.encoders[index].dtype),
        max_states=states,
        progress=console.is_terminal,
    )
    save_centres(path, fitted.centres)
    console.print(
        f"{len(fitted.centres)} centres of width {fitted.centres.shape[1]}, from {fitted.num_states} states of "
        f"{fitted.num_clips} clips, at a mean squared distance of {fitted.mean_distance:.3f}, are in {path}",
        highlight=False,
    )
