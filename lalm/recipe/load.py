"""Reads a recipe file into one frozen `Recipe`, and writes it back. Every problem of a file is reported at once.

    load_recipe("recipes/quickstart.yaml", ["stages.align.steps=5", "data.folder=my_data"])

A file may begin with `extends: other.yaml`: mappings are merged, lists and single values replaced. Imports no torch.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lalm.errors import RecipeError
from lalm.recipe.problems import Place, describe_problems, spell
from lalm.recipe.schema import Recipe
from lalm.recipe.tiny import tiny_twin
from lalm.resources import list_shipped, shipped

EXTENDS = "extends"
HEADER = "# The resolved recipe of a run: every setting, defaults included. `lalm train` reads it like any other.\n"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML 1.1 reads `5e-4` as text; here it is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass
class _Source:
    """The plain value of a recipe file, and where each of its keys was written."""

    value: dict[str, Any]
    origins: dict[Place, str] = field(default_factory=dict)
    """Place -> "(line 12)", with the file where it is not the one that was asked for, or the override."""


def load_recipe(recipe: str | os.PathLike[str], overrides: Sequence[str] = (), *, tiny: bool = False) -> Recipe:
    """Reads a recipe by path, by the name of a shipped one (`quickstart`), or from a run folder.

    Args:
        overrides: `a.b=value`, the value read as YAML. An item of a list is named by its number or its `name`:
            `stages[0].steps=5`, `stages.0.steps=5` and `stages.align.steps=5` are the same.
        tiny: the recipe's tiny twin (`lalm.recipe.tiny`), which the overrides then change.

    Raises:
        RecipeError: if there is no such recipe, it is no YAML, or anything in it is not accepted; one line a problem.
    """
    path = find_recipe(recipe)
    source = _read(path, ())
    if tiny:
        source = _Source(tiny_twin(_validate(path, source)))
    for text in overrides:
        _apply_override(source, text)
    return _validate(path, source)


def _validate(path: Path, source: _Source) -> Recipe:
    try:
        return Recipe.model_validate(source.value)
    except ValidationError as error:
        problems = describe_problems(error, source.value)
    lines = [f"{path}: {spell(place)}{message}{_origin(source, place)}" for place, message in problems]
    raise RecipeError("\n".join(dict.fromkeys(lines)))


def find_recipe(recipe: str | os.PathLike[str]) -> Path:
    """The file of a recipe: a path, a run folder, or the name of a shipped recipe.

    Raises:
        RecipeError: if there is none; names the closest shipped ones.
    """
    path = Path(recipe)
    if path.is_dir():
        if (path / "recipe.yaml").is_file():
            return path / "recipe.yaml"
        raise RecipeError(f"{path}: is a folder without a recipe.yaml. Give a recipe file, or a run folder.")
    if path.is_file():
        return path
    names = sorted(list_shipped("recipes"))
    stems = [Path(name).stem for name in names]
    if path.parent == Path("."):
        wanted = path.stem if path.suffix in (".yaml", ".yml") else path.name
        if wanted in stems:
            return _from_here(shipped("recipes", names[stems.index(wanted)]))
    close = difflib.get_close_matches(path.stem, stems, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else "`lalm recipes list` shows those that come with lalm."
    raise RecipeError(f"{recipe}: no such recipe file, and no shipped recipe of that name. {hint}")


def _from_here(path: Path) -> Path:
    """Relative to the working folder where it lies in it, as messages show it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def save_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Writes the resolved recipe (all settings) atomically; `load_recipe` gives an equal one back."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(HEADER + recipe_yaml(recipe))
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def recipe_yaml(recipe: Recipe) -> str:
    """All settings of a recipe as YAML, in the order of the schema."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"][EXTENDS] = {"type": "string", "description": "A recipe that this one is a change of."}
    required = schema.pop("required")
    parts = {"encoders", "projector", "language_model"}
    of_base = ["base", *(key for key in required if key not in parts)]
    schema["anyOf"] = [{"required": required}, {"required": of_base}, {"required": [EXTENDS]}]
    return schema


def _read(path: Path, above: tuple[Path, ...]) -> _Source:
    """A file with what it extends merged under it. `above`: the files that lead here, to notice a circle."""
    if path.resolve() in above:
        raise RecipeError(f"{path}: {EXTENDS}: the recipes extend one another in a circle.")
    value, lines = _read_yaml(path)
    label = f" (line {{}} of {path})" if above else " (line {})"
    source = _Source(value, {place: label.format(line) for place, line in lines.items()})
    parent = value.pop(EXTENDS, None)
    if parent is None:
        return source
    if not isinstance(parent, str):
        raise RecipeError(f"{path}: {EXTENDS}: must be the name of one recipe, got {parent!r}.")
    try:
        parent_path = path.parent / parent
        base = _read(parent_path if parent_path.is_file() else find_recipe(parent), (*above, path.resolve()))
    except RecipeError as error:
        raise RecipeError(f"{path}: {EXTENDS}: {error}") from None
    return _Source(_merge(base.value, value, is_root=True), {**base.origins, **source.origins})


def _merge(base: Mapping[str, Any], change: Mapping[str, Any], *, is_root: bool = False) -> dict[str, Any]:
    """`change` over `base`. A section of another `name` (another projector) replaces the old one whole."""
    if not is_root and "name" in change and change["name"] != base.get("name"):
        return dict(change)
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Place, int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None
    try:
        tree = yaml.compose(text, Loader=_Loader)
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise RecipeError(f"{path}: is not valid YAML: {getattr(error, 'problem', error)}{where}") from None
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, this file holds {found}.")
    lines: dict[Place, int] = {}
    repeated: list[str] = []
    _walk(tree, (), lines, repeated)
    if repeated:
        raise RecipeError("\n".join(f"{path}: {line}" for line in repeated))
    return value, lines


def _walk(node: yaml.Node, place: Place, lines: dict[Place, int], repeated: list[str]) -> None:
    """Notes the line of every key and item, and the keys that stand twice in one mapping."""
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            here = (*place, key.value)
            line = key.start_mark.line + 1
            if here in lines and key.value != "<<":
                repeated.append(
                    f"{'.'.join(map(str, here))}: given twice (lines {lines[here]} and {line}). Remove one."
                )
            lines[here] = line
            _walk(child, here, lines, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            lines[(*place, number)] = child.start_mark.line + 1
            _walk(child, (*place, number), lines, repeated)


def _apply_override(source: _Source, text: str) -> None:
    """Sets one value in the plain recipe; whether the key exists is the schema's business."""
    key, equals, value_text = text.partition("=")
    parts = [part for part in re.split(r"[.\[\]]+", key.strip()) if part]
    if not equals or not parts:
        raise RecipeError(f"override '{text}': write it as a.b=value, for example stages.0.steps=5.")
    try:
        value = yaml.load(value_text, Loader=_Loader)
    except yaml.YAMLError:
        raise RecipeError(f"override '{text}': the value is not valid YAML. Quote it: {key}=\"'...'\"") from None
    here: Any = source.value
    place: Place = ()
    for number, part in enumerate(parts):
        if isinstance(here, list):
            step: str | int = _item(here, part, place, text)
        elif isinstance(here, dict):
            step = part
        else:
            raise RecipeError(f"override '{text}': {spell(place).rstrip(': ')} is {here!r}, which has no '{part}'.")
        place = (*place, step)
        if number == len(parts) - 1:
            here[step] = value
        elif isinstance(here, dict) and here.get(step) is None:
            here[step] = {}
        here = here[step]
    source.origins = {known: where for known, where in source.origins.items() if known[: len(place)] != place}
    source.origins[place] = f" (override '{text}')"


def _item(items: list[Any], part: str, place: Place, text: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(items):
        return int(part)
    accepted = [str(name) if name else str(number) for number, name in enumerate(names)]
    raise RecipeError(
        f"override '{text}': {spell(place).rstrip(': ')} has no item '{part}'. Accepted: {', '.join(accepted)}, "
        f"or a number from 0 to {len(items) - 1}."
    )


def _origin(source: _Source, place: Place) -> str:
    """Where the value at `place`, or the nearest section around it, was given."""
    for length in range(len(place), 0, -1):
        if place[:length] in source.origins:
            return source.origins[place[:length]]
    return ""
