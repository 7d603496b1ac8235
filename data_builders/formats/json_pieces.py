"""A JSON file of any size, one row at a time, each with its line and column, and going on after a broken one.

A row ends where its brackets close; a line break inside a string, which JSON forbids, ends the string. So a broken row
spoils itself only, unless a bracket is missing, which spoils what follows and is said at the end of the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

from lalm.errors import DataError

CHUNK_CHARS = 1 << 16
MAX_ROW_CHARS = 1 << 26
_SPACE = " \t\r\n"
_STRING = re.compile(r'"|\\|\n')
_PLAIN = re.compile(r'["\[\]{},]')


@dataclass(frozen=True)
class Piece:
    """The text of a value, its key if it is a member of an object, and where it begins (both from 1)."""

    text: str
    key: str
    line: int
    column: int

    def value(self) -> Any:
        """
        Raises:
            ValueError: with line and column in the file, if it is no JSON.
        """
        return parse_json(self.text, self.line, self.column)


def parse_json(text: str, line: int = 1, column: int = 1) -> Any:
    """Strict JSON: no NaN, no lone surrogate.

    Raises:
        ValueError: "<line>:<column>: what is wrong".
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        at = (line + error.lineno - 1, error.colno + (column - 1 if error.lineno == 1 else 0))
        raise ValueError(f"{at[0]}:{at[1]}: is no JSON: {error.msg}") from None
    except UnicodeEncodeError:
        raise ValueError(f"{line}:{column}: holds half of a character (a lone surrogate)") from None
    except RecursionError:
        raise ValueError(f"{line}:{column}: is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{line}:{column}: {error}") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


@dataclass
class Pieces:
    """Walks over a file: `header` fills with what stands beside the rows."""

    file: TextIO
    name: str
    rows_key: str = ""
    header: dict[str, Any] = field(default_factory=dict)
    _buffer: str = ""
    _at: int = 0
    _line: int = 1
    _column: int = 1

    def rows(self) -> Iterator[Piece]:
        """The elements of the list (or members of the object) that the file is, or that stands at `rows_key`.

        Raises:
            DataError: if the file is no such JSON, does not close, or has a row of more than MAX_ROW_CHARS.
        """
        start = self._peek()
        if not self.rows_key:
            if start != "[":
                raise self._wrong("a list ([) must stand here")
            yield from self._members()
            return
        if start != "{":
            raise self._wrong(f"an object with the key '{self.rows_key}' must stand here")
        self._take()
        found = False
        while self._peek() not in ("}", ""):
            key = self._key()
            if key == self.rows_key:
                found = True
                if self._peek() not in ("[", "{"):
                    raise self._wrong(f"a list or an object must stand at '{key}'")
                yield from self._members()
            else:
                self.header[key] = self._header_value()
            if self._peek() == ",":
                self._take()
        if not self._peek():
            raise self._wrong("the file ends before its object is closed")
        if not found:
            raise self._wrong(f"the file has no key '{self.rows_key}'")

    def _header_value(self) -> Any:
        try:
            return self._piece("").value()
        except ValueError as error:
            raise DataError(f"{self.name}:{error}") from None

    def _members(self) -> Iterator[Piece]:
        close = {"[": "]", "{": "}"}[self._take()]
        while (char := self._peek()) != close:
            if not char:
                raise self._wrong("the file ends before its rows are closed; it was cut off, or a bracket is missing")
            if char == ",":
                self._take()
                continue
            yield self._piece(self._key() if close == "}" else "")
        self._take()

    def _key(self) -> str:
        piece = self._piece("", is_key=True)
        try:
            key = piece.value()
        except ValueError as error:
            raise DataError(f"{self.name}:{error}") from None
        if not isinstance(key, str) or self._peek() != ":":
            raise self._wrong("a key and a colon must stand here")
        self._take()
        return key

    def _piece(self, key: str, *, is_key: bool = False) -> Piece:
        """The text up to where the brackets close, or up to a comma outside of them."""
        self._peek()
        line, column, depth, in_string, parts, size = self._line, self._column, 0, False, [], 0
        while True:
            if self._at >= len(self._buffer) and not self._fill():
                break
            found = (_STRING if in_string else _PLAIN).search(self._buffer, self._at)
            end = found.end() if found else len(self._buffer)
            char = found.group() if found else ""
            if not in_string and depth == 0 and char and char in "]},":
                parts.append(self._advance(end - 1))
                break
            parts.append(self._advance(end))
            size += len(parts[-1])
            if size > MAX_ROW_CHARS:
                raise self._wrong(f"the row of line {line} has more than {MAX_ROW_CHARS} characters")
            if in_string and char == "\\":
                if self._at >= len(self._buffer):
                    self._fill()
                parts.append(self._advance(self._at + 1))
            elif in_string and char:
                in_string = False
                if is_key and depth == 0:
                    break
            elif char == '"':
                in_string = True
            elif char in ("[", "{"):
                depth += 1
            elif char in ("]", "}"):
                depth -= 1
                if depth == 0:
                    break
        text = "".join(parts).rstrip(_SPACE)
        if not text:
            raise self._wrong("a value must stand here; a bracket is too much, or one is missing before")
        return Piece(text, key, line, column)

    def _peek(self) -> str:
        """The next character that is no space; nothing at the end."""
        while True:
            if self._at >= len(self._buffer) and not self._fill():
                return ""
            char = self._buffer[self._at]
            if char not in _SPACE:
                return char
            self._advance(self._at + 1)

    def _take(self) -> str:
        return self._advance(self._at + 1)

    def _advance(self, end: int) -> str:
        text = self._buffer[self._at : end]
        lines = text.count("\n")
        self._line += lines
        self._column = len(text) - text.rfind("\n") if lines else self._column + len(text)
        self._at += len(text)
        return text

    def _fill(self) -> bool:
        self._buffer, self._at = self.file.read(CHUNK_CHARS), 0
        return bool(self._buffer)

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self.name}:{self._line}:{self._column}: {what}.")
