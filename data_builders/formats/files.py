"""The files that formats live in: JSON lists and objects, JSON lines, CSV. Read row by row, written whole or not."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TextIO

from data_builders.formats.base import EXTENSION, FieldProblem, Format, Hints, Values
from data_builders.formats.json_pieces import Pieces, parse_json
from data_builders.formats.rows import foreign_of, row_of_record
from lalm.data.records import Record
from lalm.errors import DataError

MAX_CELL_CHARS = 1 << 24

Found = tuple[str, Values | str, Hints]
"""Where, the row (or what is wrong with it), and what its place tells."""


def extra_path(path: Path) -> Path:
    """The file beside a CSV that holds the extensions, a line a row."""
    return path.with_name(f"{path.name}.extra.jsonl")


def read_rows(form: Format, path: Path) -> Iterator[Found]:
    """Every row of a file with its place, memory for one of them; a broken one is a text that says why.

    A list is read where lines are expected and lines where a list is.

    Raises:
        DataError: if the file is missing, or as a whole is not what the format says.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if form.container == "csv":
        yield from _csv_rows(form, path)
        return
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        start = ""
        while not start.strip() and (read := file.read(1)):
            start = read
        file.seek(0)
        if start == "[" or form.rows_key:
            yield from _list_rows(form, path, file)
        else:
            yield from _line_rows(path, file)


def write_rows(form: Format, path: Path, records: Iterable[Record], *, plain: bool = False) -> int:
    """Writes records as rows; a killed writer leaves the old file. `plain` leaves the extension out: that loses.

    Raises:
        DataError: for a record whose text cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if form.container == "csv":
        return _write_csv(form, path, records, plain)
    with _replacing(path) as out:
        return _write_json(form, out, records, plain)


def _list_rows(form: Format, path: Path, file: TextIO) -> Iterator[Found]:
    pieces = Pieces(file, str(path), form.rows_key)
    for number, piece in enumerate(pieces.rows(), start=1):
        hints = Hints(number, piece.key, path.stem, pieces.header)
        where = f"{path}:{piece.line}:{piece.column}"
        yield _row(where, piece.text, hints, path, piece.line, piece.column)


def _line_rows(path: Path, file: TextIO) -> Iterator[Found]:
    number = 0
    for line, text in enumerate(file, start=1):
        text = text.lstrip("\ufeff")
        if text.strip():
            number += 1
            yield _row(f"{path}:{line}:1", text.rstrip("\r\n"), Hints(number, stem=path.stem), path, line, 1)


def _row(where: str, text: str, hints: Hints, path: Path, line: int, column: int) -> Found:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"{path}:{line}:{column + error.start}", "is not UTF-8", hints
    try:
        value = parse_json(text, line, column)
    except ValueError as error:
        place, _, what = str(error).partition(": ")
        return f"{path}:{place}", what, hints
    return where, value if isinstance(value, dict) else f"is no object but {type(value).__name__}", hints


def _csv_rows(form: Format, path: Path) -> Iterator[Found]:
    """Rows of a CSV with its lines of the file beside it, if there is one."""
    csv.field_size_limit(MAX_CELL_CHARS)
    extra = extra_path(path)
    with (
        path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
        (extra if extra.is_file() else Path(os.devnull)).open(encoding="utf-8") as lines,
    ):
        reader = csv.reader(file, strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise DataError(f"{path}:1: is no CSV ({error}).") from None
        if missing := [name for name in form.columns if name not in names and name not in _OPTIONAL.get(form.name, ())]:
            raise DataError(f"{path}:1: the column(s) {missing} are missing. Found: {names}.")
        number = 0
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                lines.readline()
                yield f"{path}:{line}", f"is no row of a CSV ({error})", Hints(number, stem=path.stem)
                continue
            if not cells:
                continue
            number += 1
            hints = Hints(number, stem=path.stem)
            extension = lines.readline()
            if len(cells) != len(names):
                yield (
                    f"{path}:{line}",
                    f"column {min(len(cells), len(names)) + 1}: {len(cells)} cells, not {len(names)}",
                    hints,
                )
                continue
            try:
                values: Values = {
                    name: _cell(cell, form, place, name)
                    for place, (name, cell) in enumerate(zip(names, cells, strict=True), start=1)
                }
            except FieldProblem as problem:
                yield f"{path}:{line}", str(problem), hints
                continue
            if extra.is_file():
                values[EXTENSION] = extension or "{}"
            yield f"{path}:{line}", values, hints


_OPTIONAL = {"clotho_aqa": ("confidence",)}


def _cell(cell: str, form: Format, place: int, name: str) -> str:
    try:
        cell.encode()
    except UnicodeEncodeError:
        try:
            return cell.encode("utf-8", "surrogateescape").decode(form.fallback_encoding or "utf-8")
        except UnicodeError:
            raise FieldProblem(f"column {place} ({name}): is not {form.fallback_encoding or 'UTF-8'}") from None
    return cell


def _write_json(form: Format, out: TextIO, records: Iterable[Record], plain: bool) -> int:
    number = 0
    for number, record in enumerate(records, start=1):
        values, extension = row_of_record(form, record)
        if not plain:
            values = {**values, EXTENSION: json.dumps(extension, ensure_ascii=False)}
        if form.container == "jsonl":
            out.write(_json(values) + "\n")
            continue
        out.write(_opening(form, record) if number == 1 else ",\n")
        out.write((f"{json.dumps(str(number - 1))}: " if form.keyed else "") + _json(values))
    if form.container == "json":
        if not number:
            out.write("{" + f'"{form.rows_key}": ' if form.rows_key else "")
            out.write("{" if form.keyed else "[")
        out.write("\n}" if form.keyed else "\n]")
        if form.keyed:
            out.write(f',\n"total_num": {number}')
        out.write("}\n" if form.rows_key else "\n")
    return number


def _opening(form: Format, record: Record) -> str:
    """What stands before the first row; the header that the first record was read with, if it was."""
    rows = "{\n" if form.keyed else "[\n"
    if not form.rows_key:
        return rows
    kept = foreign_of(form, record).get("header")
    header = {**(kept if isinstance(kept, dict) else {}), **form.header(record)}
    members = [f"{json.dumps(key)}: {_json(value)},\n" for key, value in header.items() if key not in _COUNTED]
    return "{" + "".join(members) + f"{json.dumps(form.rows_key)}: {rows}"


_COUNTED = ("total_num",)


def _write_csv(form: Format, path: Path, records: Iterable[Record], plain: bool) -> int:
    """Columns are those of the format and the foreign ones of the first record."""
    stream = iter(records)
    first = next(stream, None)
    columns = list(form.columns)
    if first is not None:
        kept = foreign_of(form, first)
        mine = kept.get("whole") or kept.get("row") or {}
        if isinstance(kept.get("whole"), dict):
            columns = list(mine)
        columns += [key for key in mine if key not in columns and isinstance(mine[key], str)]
    count = 0
    with _replacing(path) as out, _replacing(extra_path(path)) as extra:
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow(columns)
        for record in chain([first] if first is not None else [], stream):
            count += 1
            values, extension = row_of_record(form, record, tuple(columns))
            writer.writerow(values.values())
            if not plain:
                extra.write(_json(extension) + "\n")
    if plain:
        extra_path(path).unlink()
    return count


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A file that takes its name when it is whole."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        with open(name, "w", encoding="utf-8", newline="") as out:
            yield out
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
