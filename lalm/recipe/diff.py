"""How two recipes differ, setting by setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lalm.recipe.schema import Recipe

ABSENT = "(absent)"


def diff_recipes(before: Recipe, after: Recipe) -> list[tuple[str, Any, Any]]:
    """(path, value in `before`, value in `after`) of every setting that differs, defaults included.

    Named items (stages, encoders) are compared by name. A path can be used as an override; `ABSENT` stands for a
    setting that one of them does not have.
    """
    return list(_differences("", before.model_dump(mode="json"), after.model_dump(mode="json")))


def _differences(path: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if before == after:
        return
    old, new = _by_key(before), _by_key(after)
    if old is None or new is None:
        yield path, before, after
        return
    start = len(new)
    for key in dict.fromkeys([*old, *new]):
        place = f"{path}.{key}" if path else str(key)
        if key in old and key in new:
            yield from _differences(place, old[key], new[key])
        else:
            yield place, old.get(key, ABSENT), new.get(key, ABSENT)
    if start and list(old) != list(new) and set(old) == set(new) and isinstance(before, list):
        yield f"{path} (order)", list(old), list(new)


def _by_key(value: Any) -> dict[str, Any] | None:
    """A mapping, or a list of differently named mappings, by key or name; None for anything else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        named = {item["name"]: item for item in value}
        return named if len(named) == len(value) else None
    return None
