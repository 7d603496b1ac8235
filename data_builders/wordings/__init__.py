"""Wordings of questions, as YAML data files: one file a task, each a table of lists, a list for each kind of question.

`{slot}` stands for what the family fills in. A slot that a family does not know is an error, not an empty word.
"""

from __future__ import annotations

import string
from functools import cache
from importlib import resources

import yaml

from lalm.errors import DataError


@cache
def load_wordings(task: str) -> dict[str, tuple[str, ...]]:
    """The lists of wordings of one task by name.

    Raises:
        DataError: for a missing file or one that is not a table of non-empty lists of text.
    """
    path = resources.files(__package__) / f"{task}.yaml"
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"wordings/{task}.yaml: no such file; every task has one.") from None
    if not isinstance(table, dict) or not all(isinstance(rows, list) and rows for rows in table.values()):
        raise DataError(f'wordings/{task}.yaml: must be a table of lists, such as `default: ["What is heard?"]`.')
    return {name: tuple(str(row) for row in rows) for name, rows in table.items()}


def slots_of(wording: str) -> set[str]:
    """The slots that a wording needs."""
    return {name for _, name, _, _ in string.Formatter().parse(wording) if name}


def fill(task: str, name: str, number: int, slots: dict[str, str]) -> str:
    """The wording `number` (counted round) of a list, its slots filled.

    Raises:
        DataError: for an unknown list, or a slot that the family does not fill.
    """
    lists = load_wordings(task)
    if name not in lists:
        raise DataError(f"wordings/{task}.yaml: has no list '{name}'; it has {', '.join(lists)}.")
    wording = lists[name][number % len(lists[name])]
    missing = slots_of(wording) - set(slots)
    if missing:
        raise DataError(
            f"wordings/{task}.yaml: {name}: '{wording}' asks for {sorted(missing)}; known here: {sorted(slots)}."
        )
    return wording.format(**slots)
