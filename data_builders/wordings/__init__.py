"""Wordings of questions, as YAML data files: one file a task, each a table of lists, a list for each kind of question.

`{slot}` stands for what the family fills in. A slot that a family does not know is an error, not an empty word.
"""

from __future__ import annotations

import string
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

import yaml

from lalm.errors import DataError

ENGLISH = "en"


def wording_languages() -> tuple[str, ...]:
    """English, and the languages that have a folder of wordings."""
    folder = resources.files(__package__)
    others = (item.name for item in folder.iterdir() if item.is_dir() and len(item.name) == 2)
    return (ENGLISH, *sorted(others))


@cache
def load_wordings(task: str, language: str = ENGLISH) -> dict[str, tuple[str, ...]]:
    """The lists of wordings of one task by name; a list that a language lacks is the English one.

    Raises:
        DataError: for a missing file or one that is not a table of non-empty lists of text, or a list in another
            language that English does not have.
    """
    folder = resources.files(__package__)
    english = _read(folder / f"{task}.yaml", f"wordings/{task}.yaml")
    if language == ENGLISH or not (folder / language / f"{task}.yaml").is_file():
        return english
    name = f"wordings/{language}/{task}.yaml"
    translated = _read(folder / language / f"{task}.yaml", name)
    for list_ in translated:
        if list_ not in english:
            raise DataError(f"{name}: the list '{list_}' is not in the English file, which has {', '.join(english)}.")
    return english | translated


def _read(path: Traversable, name: str) -> dict[str, tuple[str, ...]]:
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{name}: no such file; every task has one.") from None
    if not isinstance(table, dict) or not all(isinstance(rows, list) and rows for rows in table.values()):
        raise DataError(f'{name}: must be a table of lists, such as `default: ["What is heard?"]`.')
    return {key: tuple(str(row) for row in rows) for key, rows in table.items()}


@cache
def slots_of(wording: str) -> frozenset[str]:
    """The slots that a wording needs."""
    return frozenset(name for _, name, _, _ in string.Formatter().parse(wording) if name)


def fill(task: str, name: str, number: int, slots: dict[str, str], language: str = ENGLISH) -> str:
    """The wording `number` (counted round) of a list, its slots filled.

    Raises:
        DataError: for an unknown list, or a slot that the family does not fill.
    """
    lists = load_wordings(task, language)
    if name not in lists:
        raise DataError(f"wordings/{task}.yaml: has no list '{name}'; it has {', '.join(lists)}.")
    wording = lists[name][number % len(lists[name])]
    if not slots_of(wording) <= slots.keys():
        missing = sorted(slots_of(wording) - slots.keys())
        raise DataError(f"wordings/{task}.yaml: {name}: '{wording}' asks for {missing}; known here: {sorted(slots)}.")
    return wording.format(**slots)
