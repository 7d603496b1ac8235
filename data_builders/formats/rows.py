"""Rows of a format into records and back: the extension, the foreign values, and what other readers would miss."""

from __future__ import annotations

import json
from typing import Any

from data_builders.formats.base import EXTENSION, FOREIGN, FieldProblem, Format, Hints, Row, Values, digest, same
from lalm.data.records import AUDIO_PLACEHOLDER, Record, parse_record
from lalm.errors import DataError


def record_of_row(form: Format, values: Values, hints: Hints, where: str) -> Record:
    """The record of a row, with its extension if it has one.

    Raises:
        DataError: with place and key, for a row that is no record, or was changed after it was exported.
    """
    values = dict(values)
    extension = _extension(values.pop(EXTENSION, None), where)
    if extension is None:
        value = _read(form, values, hints, where)
        _keep_foreign(form, value, values, hints, where)
        return parse_record(value, where)
    if extension.pop("row", None) != digest(values):
        raise DataError(
            f"{where}: was changed after it was exported, and its extension ({EXTENSION}) no longer fits. "
            "Take the extension away to import the row as it stands."
        )
    try:
        value = _read(form, values, Hints(), where)
    except DataError:
        value = {}  # an extension may hold the whole record
    return parse_record({**value, **extension}, where)


def row_of_record(form: Format, record: Record, columns: tuple[str, ...] = ()) -> tuple[Values, Values]:
    """A row, and the extension with all that the row does not hold. `columns` are those of a CSV."""
    values = _published(form, record)
    if columns:
        values = {column: values[column] if isinstance(values.get(column), str) else "" for column in columns}
    try:
        back = parse_record(_read(form, values, Hints(), ""), "").model_dump(mode="json")
    except DataError:
        back = {}
    whole = record.model_dump(mode="json")
    rest = {key: value for key, value in whole.items() if key not in back or not same(back[key], value)}
    return values, {"row": digest(values), **rest}


def misses(record: Record, extension: Values, form: Format) -> set[str]:
    """What somebody who reads only the published row misses of the conversation: audio, turns, or nothing."""
    found = {"audio"} & extension.keys()
    if "turns" in extension:
        try:
            back = _read(form, _published(form, record), Hints(), "")
        except DataError:
            return found | {"turns"}
        if _spoken(back["turns"]) != _spoken([turn.model_dump() for turn in record.turns]):
            found.add("turns")
    return found


def foreign_of(form: Format, record: Record) -> dict[str, Any]:
    """What a record keeps of the row that it was read from in this format."""
    foreign = record.provenance.get(FOREIGN)
    mine = foreign.get(form.name) if isinstance(foreign, dict) else None
    return mine if isinstance(mine, dict) else {}


def _spoken(turns: list[Values]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"].replace(AUDIO_PLACEHOLDER, "").strip()) for turn in turns]


def _published(form: Format, record: Record) -> Values:
    """The row as its publisher wrote it, if the conversation is still the same; else a new one, foreign keys kept."""
    foreign = foreign_of(form, record)
    whole, rest = foreign.get("whole"), foreign.get("row")
    if isinstance(whole, dict):
        try:
            back = parse_record(_read(form, whole, Hints(), ""), "")
            if (back.audio, back.turns) == (record.audio, record.turns):
                return {key: value for key, value in whole.items() if key != EXTENSION}
        except DataError:
            pass
    written = form.write(record)
    kept = rest if isinstance(rest, dict) else whole if isinstance(whole, dict) else {}
    return {**{key: value for key, value in kept.items() if key != EXTENSION}, **written}


def _keep_foreign(form: Format, value: Values, values: Values, hints: Hints, where: str) -> None:
    rest = value.pop("", {})
    kept: Values = {}
    if not same({**form.write(parse_record(value, where)), **rest}, values):
        kept["whole"] = values
    elif rest:
        kept["row"] = rest
    if hints.header:
        kept["header"] = dict(hints.header)
    if kept:
        value["provenance"] = {FOREIGN: {form.name: kept}}


def _read(form: Format, values: Values, hints: Hints, where: str) -> Values:
    """The JSON object of a record; what no key of it took stands under the empty key until it is kept."""
    row = Row(values)
    try:
        value = form.read(row, hints)
    except FieldProblem as problem:
        raise DataError(f"{where}: {problem}") from None
    value.setdefault("id", f"{form.name}-{hints.number}" if hints.number else "-")
    if rest := row.rest():
        if hints == Hints():
            value["provenance"] = {FOREIGN: {form.name: {"row": rest}}}
        else:
            value[""] = rest
    return value


def _extension(value: Any, where: str) -> Values | None:
    if value is None:
        return None
    try:
        extension = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise DataError(f"{where}: {EXTENSION}: is no JSON ({error})") from None
    if not isinstance(extension, dict):
        raise DataError(f"{where}: {EXTENSION}: is no JSON object. Rename the key, or take it away.")
    return extension
