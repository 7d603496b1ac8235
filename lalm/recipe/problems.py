"""What pydantic found wrong with a recipe, in words that a person can act on: the key, the value, what is accepted."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from lalm.recipe.schema import Recipe

Place = tuple[str | int, ...]
"""Keys and list positions that lead to a value of the file."""

_SHOWN_CHARACTERS = 60


def describe_problems(error: ValidationError, value: Any) -> list[tuple[Place, str]]:
    """(place, message) of each problem of the plain recipe `value`, in the order of the file's schema."""
    found: dict[Place, list[str]] = {}
    items = [(item, _place_in_file(item, value)) for item in error.errors()]
    for item, place in items:
        # A list whose items are wrong also counts as too short; its items say more.
        if item["type"] == "too_short" and any(other[: len(place)] == place != other for _, other in items):
            continue
        for message in _messages(item, place, value):
            if message not in found.setdefault(place, []):
                found[place].append(message)
    # Several messages at one place are the branches of a union: any of them would do.
    return [
        (place, message)
        for place, messages in found.items()
        for message in ([" Or: ".join(messages)] if place else messages)
    ]


def spell(place: Place) -> str:
    """`stages[1].projector.window_steps: `, as it opens a message; empty for the whole file."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return f"{text}: " if text else ""


def _place_in_file(item: Mapping[str, Any], value: Any) -> Place:
    """pydantic's location without the tags of unions, which are no keys of the file."""
    place: list[str | int] = []
    here = value
    for number, part in enumerate(item["loc"]):
        is_last = number == len(item["loc"]) - 1
        is_item = isinstance(here, list | tuple) and isinstance(part, int) and part < len(here)
        if is_item or (isinstance(here, Mapping) and part in here):
            here = here[part]
        elif isinstance(here, Mapping) and here.get("name") == part:
            continue
        elif not (is_last and item["type"] == "missing"):
            break
        place.append(part)
    return (*place, "name") if item["type"].startswith("union_tag") else tuple(place)


def _messages(item: Mapping[str, Any], place: Place, value: Any) -> list[str]:
    kind, given, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return [_unknown_key(str(place[-1]), accepted_keys(place[:-1], value))]
    if kind == "missing":
        return ["missing. Every recipe must give it."]
    if kind == "literal_error":
        return [_not_accepted(given, _quoted(context["expected"]))]
    if kind == "union_tag_invalid":
        return [_not_accepted(context["tag"], _quoted(context["expected_tags"]))]
    if kind == "union_tag_not_found":
        return ["missing. It says which kind this section is of."]
    if kind == "value_error":
        message = item["msg"].removeprefix("Value error, ")
        return message.split("; ") if not place else [f"{message}."]
    message = item["msg"].removeprefix("Input ")
    return [f"{message[0].lower()}{message[1:]}, got {_short(given)}."]


def _unknown_key(key: str, accepted: list[str]) -> str:
    close = difflib.get_close_matches(key, accepted, n=1)
    if close:
        return f"unknown key. Did you mean '{close[0]}'?"
    return f"unknown key. Accepted: {', '.join(accepted)}."


def _not_accepted(given: Any, accepted: list[str]) -> str:
    close = difflib.get_close_matches(str(given), accepted, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{_short(given)} is not accepted. Accepted: {', '.join(accepted)}.{hint}"


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def accepted_keys(place: Place, value: Any) -> list[str]:
    """The keys of the section at `place`, found by walking the schema beside the file's own values."""
    section: Any = Recipe
    here = value
    for part in place:
        here = here[part]
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[part].annotation if part in section.model_fields else None
        else:
            arguments = typing.get_args(section)
            section = arguments[-1 if typing.get_origin(section) is dict else 0] if arguments else None
        section = _choose(section, here)
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _choose(annotation: Any, value: Any) -> Any:
    """The member of a union that a value is read as; other annotations as they are."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _choose(typing.get_args(annotation)[0], value)
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    members = [_choose(member, value) for member in typing.get_args(annotation)]
    sections = [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
    name = value.get("name") if isinstance(value, Mapping) else None
    for section in sections:
        if "name" in section.model_fields and section.model_fields["name"].default == name:
            return section
    others = [member for member in members if member is not type(None)]
    return sections[0] if sections else others[0]
