"""Reads the recipe of a set: a file, or the name of one that comes with the toolkit. Every problem is told at once."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from data_builders.recipe import DataRecipe
from lalm.errors import RecipeError


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of the recipes that come with the toolkit."""
    folder = Path(str(resources.files("data_builders.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_data_recipe(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> DataRecipe:
    """A recipe by path or by name; `overrides` replace keys of the file, such as the seed.

    Raises:
        RecipeError: if there is no such recipe, it is no YAML, or anything in it is not accepted; one line a problem.
    """
    path = find_data_recipe(recipe)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is not YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: must be a table of settings, such as `name: my_set`.")
    value |= overrides or {}
    try:
        return DataRecipe.model_validate(value)
    except ValidationError as error:
        lines = [f"{path}: {_problem(item)}" for item in error.errors()]
    raise RecipeError("\n".join(dict.fromkeys(lines)))


def find_data_recipe(recipe: str | Path) -> Path:
    """The file of a recipe.

    Raises:
        RecipeError: if there is none; names the closest one that comes with the toolkit.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if path.suffix not in (".yaml", ".yml") and str(recipe) in shipped:
        return shipped[str(recipe)]
    close = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise RecipeError(f"'{recipe}' is not known.{hint} Accepted: {', '.join(shipped)}, or a YAML file of your own.")


def _problem(item: Mapping[str, Any]) -> str:
    place, kind = item["loc"], item["type"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if kind == "extra_forbidden":
        accepted = _keys_at(place[:-1])
        close = difflib.get_close_matches(str(place[-1]), accepted, n=1)
        return f"{where}: unknown key. " + (
            f"Did you mean '{close[0]}'?" if close else f"Accepted: {', '.join(accepted)}."
        )
    if kind == "missing":
        return f"{where}: missing. Every recipe of data must give it."
    if kind == "value_error":
        message = item["msg"].removeprefix("Value error, ")
        return f"{where}: {message}." if where else f"{message}."
    return f"{where}: {item['msg'].removeprefix('Input ')}, got {item['input']!r}."


def _keys_at(place: tuple[str | int, ...]) -> list[str]:
    """The keys of the section at a place of the file, by the schema's annotations."""
    section: Any = DataRecipe
    for part in place:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[str(part)].annotation
        else:
            section = next(iter(typing.get_args(section)), None)
        if typing.get_origin(section) in (typing.Union, types.UnionType):
            section = next(member for member in typing.get_args(section) if member is not type(None))
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
