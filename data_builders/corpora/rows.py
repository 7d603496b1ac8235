"""Tables of any form as rows that know their place: CSV, TSV, JSON, JSONL, lines of fields."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from data_builders.corpora.base import BadRow, Problem, Report
from lalm.errors import DataError

csv.field_size_limit(1 << 24)  # A list of embedded captions is longer than the 128 KiB that csv allows.


@dataclass(frozen=True)
class Row:
    """The values of one row by column, and where it stands."""

    path: Path
    line: int
    values: dict[str, Any]

    def text(self, column: str) -> str:
        """A value that must be there.

        Raises:
            BadRow: where it is missing or empty.
        """
        value = self.maybe(column)
        if value is None:
            raise BadRow(column, "is missing or empty")
        return value

    def maybe(self, column: str) -> str | None:
        """A value that may be missing, without the space around it."""
        value = self.values.get(column)
        text = "" if value is None else str(value).strip()
        return text or None

    def number(self, column: str) -> float:
        """A number that must be there, finite.

        Raises:
            BadRow: where it is missing or not a number.
        """
        text = self.text(column)
        try:
            value = float(text)
        except ValueError:
            raise BadRow(column, f"'{text[:40]}' is not a number") from None
        if not abs(value) < float("inf"):
            raise BadRow(column, f"'{text[:40]}' is not a finite number")
        return value

    def texts(self, column: str, separator: str | None = None) -> tuple[str, ...]:
        """Several values: a JSON list, or text cut at `separator`. Empty where there are none.

        Raises:
            BadRow: where a value is not text.
        """
        value = self.values.get(column)
        if value is None:
            return ()
        items = value if isinstance(value, (list, tuple)) else str(value).split(separator) if separator else [value]
        if not all(isinstance(item, (str, int, float)) for item in items):
            raise BadRow(column, f"{str(value)[:40]!r} is not a list of texts")
        return tuple(text for item in items if (text := str(item).strip()))


def csv_rows(
    path: Path,
    columns: Sequence[str],
    report: Report,
    *,
    names: Sequence[str] | None = None,
    delimiter: str = ",",
    quoted: bool = True,
    comment: str | None = None,
    encoding: str = "utf-8-sig",
) -> Iterator[Row]:
    """The rows of a CSV. `columns` must be among its header, or among `names` where it has none.

    A row with another number of fields than the header is reported. Lines that begin with `comment` are passed over.

    Raises:
        DataError: if the header lacks one of `columns`.
    """
    with open_text(path, encoding=encoding, errors="replace") as lines:
        counted = _Counted(lines, comment)
        style: dict[str, Any] = {} if quoted else {"quoting": csv.QUOTE_NONE}
        reader = csv.reader(counted, delimiter=delimiter, skipinitialspace=quoted, strict=quoted, **style)
        try:
            header = list(names) if names is not None else [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise DataError(f"{path}:1: the header cannot be read: {error}") from None
        missing = [name for name in columns if name not in header]
        if missing:
            raise DataError(f"{path}: the column(s) {missing} are missing. Found: {', '.join(header) or 'none'}.")
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                report(Problem(str(path), counted.number, "", f"cannot be read: {error}"))
                continue
            if not fields:
                continue
            if len(fields) != len(header):
                column = header[len(fields)] if len(fields) < len(header) else f"column {len(header) + 1}"
                reason = f"the row has {len(fields)} fields for {len(header)} columns"
                report(Problem(str(path), counted.number, column, reason))
                continue
            broken = next((name for name, text in zip(header, fields, strict=True) if "\ufffd" in text), None)
            if broken is not None:
                report(Problem(str(path), counted.number, broken, f"is not {encoding.removesuffix('-sig')}"))
                continue
            yield Row(path, counted.number, dict(zip(header, fields, strict=True)))


def json_rows(path: Path, report: Report, *, under: str | None = None) -> Iterator[Row]:
    """The objects of a JSON list, or of the list `under` that key, one at a time: such files reach gigabytes.

    Raises:
        DataError: for a file that is not such JSON, with line and column.
    """
    with open_text(path, errors="replace") as file:
        scanner = _JsonList(file, path)
        scanner.enter(under)
        for line, value in scanner:
            if isinstance(value, dict):
                yield Row(path, line, value)
            else:
                report(Problem(str(path), line, "", "is not an object"))


def jsonl_rows(path: Path, report: Report) -> Iterator[Row]:
    """The objects of a file with one a line; empty lines are passed over."""
    with open_text(path, errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                report(Problem(str(path), number, f"column {error.colno}", f"is not JSON: {error.msg}"))
                continue
            if isinstance(value, dict):
                yield Row(path, number, value)
            else:
                report(Problem(str(path), number, "", "is not an object"))


def field_rows(path: Path, names: Sequence[str], separator: str | None, report: Report) -> Iterator[Row]:
    """Lines of fields at a separator (None: space), the last one taking the rest of the line. `;` begins a comment."""
    with open_text(path, errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith(";"):
                continue
            fields = [part.strip() for part in line.strip().split(separator, len(names) - 1)]
            if len(fields) < len(names):
                report(Problem(str(path), number, names[len(fields)], f"the line has {len(fields)} fields"))
                continue
            yield Row(path, number, dict(zip(names, fields, strict=True)))


def grouped(rows: Iterable[Row], *columns: str) -> list[list[Row]]:
    """The rows with the same values in `columns` together, in the order of the first ones. Holds the table."""
    groups: dict[tuple[str | None, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.maybe(column) for column in columns), []).append(row)
    return list(groups.values())


def open_text(path: Path, *, encoding: str = "utf-8-sig", errors: str = "strict") -> IO[str]:
    """A text file, packed by gzip or not, with or without a byte order mark."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=encoding, errors=errors, newline="")
    return path.open(encoding=encoding, errors=errors, newline="")


class _Counted:
    """The lines of a file, counted; comments are passed over."""

    def __init__(self, lines: Iterable[str], comment: str | None):
        self._lines, self._comment, self.number = iter(lines), comment, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            line = next(self._lines)
            self.number += 1
            if self._comment is None or not line.startswith(self._comment):
                return line


class _JsonList:
    """The values of one JSON list, decoded as the file is read, each with the line that it begins on."""

    CHUNK = 1 << 16

    def __init__(self, file: IO[str], path: Path):
        self._file, self._path, self._text, self._at, self._line = file, path, "", 0, 1
        self._decode = json.JSONDecoder().raw_decode

    def enter(self, under: str | None) -> None:
        """Goes to the first value of the list."""
        if under is not None:
            needle = re.compile(rf'"{re.escape(under)}"\s*:\s*\[')
            while not (found := needle.search(self._text)):
                if not self._more():
                    raise DataError(f"{self._path}: has no list under '{under}'")
            self._move(found.end())
        elif self._peek() != "[":
            raise DataError(f"{self._path}:{self._line}: is not a list of objects")
        else:
            self._move(self._at + 1)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        while (sign := self._peek()) != "]":
            if sign == ",":
                self._move(self._at + 1)
                continue
            line = self._line
            yield line, self._value()

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Either wrong, or cut where the read text ends: only more text tells.
                if self._more():
                    continue
                line = self._line + self._text.count("\n", self._at, error.pos)
                raise DataError(f"{self._path}:{line}:{error.colno}: is not JSON: {error.msg}") from None
            self._move(end)
            return value

    def _peek(self) -> str:
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._move(self._at + 1)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                raise DataError(f"{self._path}:{self._line}: ends within its list. Copy it again.")

    def _move(self, to: int) -> None:
        self._line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self) -> bool:
        """Reads on, twice as much each time a value is longer than what was read; False at the end."""
        chunk = self._file.read(max(self.CHUNK, len(self._text) - self._at))
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)
