"""What a format is: how one row of it becomes a record and a record becomes a row, and where the rest goes.

A format writes what its published layout holds. Whatever of a record would not be read back from that row goes into an
extension (`lalm`, a JSON text in the row; a line of `<file>.extra.jsonl` beside a CSV), so a record comes back whole.
What a row of somebody else holds and a record has no place for stands in `provenance.foreign.<format>`, and is written
back by the same format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Literal

from lalm.data.records import AUDIO_PLACEHOLDER, Record
from lalm.errors import DataError

EXTENSION = "lalm"
FOREIGN = "foreign"
SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation"}
SPLITS |= {"test": "test", "eval": "test", "evaluation": "test"}
YES_NO = {"yes", "no"}

Values = dict[str, Any]


class FieldProblem(Exception):
    """A value of a row that cannot be used; the message opens with its key."""


@dataclass(frozen=True)
class Hints:
    """What the place of a row tells: its number from 1, its key in an object, the file's stem, the rest of the file."""

    number: int = 0
    key: str = ""
    stem: str = ""
    header: Mapping[str, Any] = field(default_factory=dict)

    @property
    def split(self) -> str:
        """The split that a word of the file's name says, else train."""
        words = self.stem.lower().replace("-", "_").split("_")
        return next((SPLITS[word] for word in words if word in SPLITS), "train")


class Row:
    """The values of one row; remembers which were used, so that the others are not lost."""

    def __init__(self, values: Values):
        self.values = values
        self._used: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) not in (None, "")

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """A value of a kind, or the default where it is missing, null or empty text.

        Raises:
            FieldProblem: if it is of another kind.
        """
        if key not in self:
            if key in self.values and default is not None:
                self._used.add(key)
            return default
        value = self.values[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise FieldProblem(f"{key}: must be {kind.__name__}, is {type(value).__name__}")
        self._used.add(key)
        return value

    def need(self, key: str, kind: type = str) -> Any:
        """A value that must be there.

        Raises:
            FieldProblem: if it is missing, empty or of another kind.
        """
        value = self.get(key, kind)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise FieldProblem(f"{key}: is {'empty' if key in self.values else 'missing'}")
        return value

    def names(self, key: str) -> list[str]:
        """One name or a list of names."""
        value = self.values.get(key)
        if isinstance(value, list):
            if not all(isinstance(item, str) for item in value):
                raise FieldProblem(f"{key}: must be a list of names")
            self._used.add(key)
            return list(value)
        return [self.need(key)]

    def rest(self) -> Values:
        """What nothing has asked for."""
        return {key: value for key, value in self.values.items() if key not in self._used}


@dataclass(frozen=True)
class Format:
    """One layout: `read` makes the JSON object of a record, `write` the values of a row; both see one row only."""

    name: str
    title: str
    container: Literal["json", "jsonl", "csv"]
    holds: str
    source: str
    read: Callable[[Row, Hints], Values]
    write: Callable[[Record], Values]
    columns: tuple[str, ...] = ()
    """Of a CSV."""
    rows_key: str = ""
    """The key that holds the rows, where the file is one object; the rest of it is the header."""
    keyed: bool = False
    """The rows are the values of an object, not of a list."""
    header: Callable[[Record], Values] = lambda record: {}
    fallback_encoding: str = ""
    """Of cells that are not UTF-8."""


def question_answer(question: str, answer: str) -> list[Values]:
    """The turns of one question and its answer."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def first_clip(record: Record) -> str:
    return record.audio[0] if record.audio else ""


def tagged_turns(record: Record, between: str) -> list[Values]:
    """Turns with a placeholder for each clip, put before the first user turn where the record has none."""
    turns = [turn.model_dump() for turn in record.turns]
    if record.audio and not any(AUDIO_PLACEHOLDER in turn["content"] for turn in turns):
        first = next(turn for turn in turns if turn["role"] == "user")
        first["content"] = (AUDIO_PLACEHOLDER + between) * len(record.audio) + first["content"]
    return turns


def closed_type(answer: str) -> str:
    """yes_no, number or open, by the answer."""
    text = answer.strip().lower()
    return "yes_no" if text in YES_NO else "number" if text.isdecimal() else "open"


def checked_name(name: str) -> str:
    """A clip's name that stays in its folder.

    Raises:
        DataError: if it is absolute, leads upward, or is written with backslashes.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or PureWindowsPath(name).drive or "\\" in name or "\0" in name:
        raise DataError(f"audio {name!r}: is no relative path with forward slashes. --strip takes off a beginning.")
    if ".." in parts:
        raise DataError(f"audio {name!r}: leads out of the folder of the clips.")
    return name


def same(left: Any, right: Any) -> bool:
    """Equal as JSON: 1, 1.0 and true are three values."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def digest(row: Values) -> str:
    """A fingerprint of what a row says, its extension left out."""
    said = {key: value for key, value in row.items() if key != EXTENSION}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
