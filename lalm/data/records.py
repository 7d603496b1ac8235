"""The record: one audio question-answer conversation as one JSON object, with one validator for reading and writing.

    {"id": "q1", "audio": ["clips/dog.wav"], "turns": [{"role": "user", "content": "What is heard?"},
     {"role": "assistant", "content": "A dog."}], "task": "sound_name"}

A set of records is a `.jsonl` file, a `.parquet` file, a folder saved by `datasets`, or a `.csv` with the columns
file, question, answer. Audio paths are relative to the folder of that file. Imports no torch.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from operator import eq
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lalm.errors import DataError

AUDIO_PLACEHOLDER = "<audio>"
"""Where a clip stands in a user turn. Without one, all clips stand before the text of the first user turn."""

AnswerType = Literal["open", "choice", "yes_no", "number", "transcript"]
Split = Literal["train", "validation", "test"]
_NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Turn(BaseModel):
    """One utterance of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: _NonEmpty


class Record(BaseModel):
    """One conversation about zero or more clips. Unknown keys are kept in `meta`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: _NonEmpty
    audio: tuple[_NonEmpty, ...] = ()
    turns: tuple[Turn, ...] = Field(min_length=1)
    task: _NonEmpty = "qa"
    choices: tuple[_NonEmpty, ...] | None = None
    answer_type: AnswerType = "open"
    source: str = ""
    split: Split = "train"
    licence: str = ""
    provenance: dict[str, Any] = Field(default_factory=dict)
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _unknown_keys_go_to_meta(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.keys() <= _FIELDS:
            return value
        known = {key: item for key, item in value.items() if key in _FIELDS}
        unknown = {key: item for key, item in value.items() if key not in _FIELDS}
        known["meta"] = {**(known.get("meta") or {}), **unknown}
        return known

    @model_validator(mode="after")
    def _conversation_is_whole(self) -> Record:
        roles = [turn.role for turn in self.turns]
        if "system" in roles[1:]:
            raise ValueError("turns: a system turn may only come first")
        spoken = roles[1:] if roles[0] == "system" else roles
        if spoken[:1] != ["user"]:
            raise ValueError("turns: the first turn after the system turn must be a user turn")
        if any(map(eq, spoken, spoken[1:])):
            raise ValueError("turns: user and assistant turns must alternate")
        placed = 0
        for turn in self.turns:
            here = turn.content.count(AUDIO_PLACEHOLDER)
            if here and turn.role != "user":
                raise ValueError(f"turns: {AUDIO_PLACEHOLDER} may stand in user turns only")
            placed += here
        if placed not in (0, len(self.audio)):
            raise ValueError(f"turns: {placed} {AUDIO_PLACEHOLDER} placeholders for {len(self.audio)} audio files")
        if self.choices is not None:
            if len(set(self.choices)) != len(self.choices):
                raise ValueError("choices: must be distinct")
            if self.answer is not None and self.answer not in self.choices:
                raise ValueError(f"choices: the answer {self.answer!r} is not one of {list(self.choices)}")
        return self

    @property
    def question(self) -> str:
        """The last user turn, without audio placeholders."""
        text = [turn.content for turn in self.turns if turn.role == "user"][-1]
        return text.replace(AUDIO_PLACEHOLDER, "").strip()

    @property
    def answer(self) -> str | None:
        """The closing assistant turn; None when the conversation waits for one."""
        last = self.turns[-1]
        return last.content if last.role == "assistant" else None

    def prompt_turns(self) -> tuple[Turn, ...]:
        """The turns that a model sees before it gives the closing answer."""
        return self.turns[:-1] if self.turns[-1].role == "assistant" else self.turns

    def to_json(self) -> dict[str, Any]:
        """The JSON object, without keys that hold their default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def of_own_json(cls, value: dict[str, Any]) -> Record:
        """What `to_json` wrote, taken as it is: the validator has seen it before."""
        known = dict(value)
        known["turns"] = tuple(Turn.model_construct(**turn) for turn in value["turns"])
        known["audio"] = tuple(value.get("audio", ()))
        if value.get("choices") is not None:
            known["choices"] = tuple(value["choices"])
        return cls.model_construct(**known)


_FIELDS = frozenset(Record.model_fields)
"""`model_fields` is computed at every look, and sets have millions of records."""


def parse_record(value: Any, where: str) -> Record:
    """Validates one JSON object. `where` ("file:line") opens the message of a `DataError`."""
    try:
        return Record.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(_problem(item) for item in error.errors())
        name = f" (id {value['id']!r})" if isinstance(value, dict) and value.get("id") else ""
        raise DataError(f"{where}{name}: {problems}") from None


def _problem(item: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Reads a `.jsonl`, `.parquet`, `.csv` file or a `datasets` folder, in order.

    Raises:
        DataError: with file and line, at the first record that breaks the contract.
    """
    path = Path(path)
    for where, value, _, _ in record_rows(path):
        yield parse_record(value, where)


def scan_records(path: str | os.PathLike[str]) -> tuple[list[Record], list[str]]:
    """Reads every good record of a file and lists the problem of each bad one, instead of stopping at the first."""
    good, bad = [], []
    for where, value, _, _ in record_rows(path):
        try:
            good.append(parse_record(value, where))
        except DataError as error:
            bad.append(str(error))
    return good, bad


def record_rows(path: str | os.PathLike[str]) -> Iterator[tuple[str, Any, int, int]]:
    """Every row of a file of records, unchecked: where it is, its JSON object, and of a `.jsonl` file where its line
    starts and how many bytes it has (else 0, 0)."""
    path = Path(path)
    if path.suffix == ".jsonl" and path.is_file():
        return _jsonl_rows(path)
    return ((where, value, 0, 0) for where, value in _other_rows(path))


def _other_rows(path: Path) -> Iterator[tuple[str, Any]]:
    if path.is_dir():
        return _dataset_rows(path)
    if not path.exists():
        raise DataError(f"{path}: no such file. Records are read from .jsonl, .parquet, .csv or a `datasets` folder.")
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix not in readers:
        raise DataError(
            f"{path}: cannot read '{path.suffix}' files. Accepted: .jsonl, {', '.join(readers)}, a `datasets` folder."
        )
    return readers[path.suffix](path)


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Any, int, int]]:
    start = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    value = json.loads(line.decode("utf-8-sig"))
                except ValueError as error:
                    value = {"id": "", "turns": [], "not_json": str(error)}
                yield f"{path}:{number}", value, start, len(line)
            start += len(line)


def _csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        wanted = {"file", "question", "answer"}
        missing = wanted - set(reader.fieldnames or ())
        if missing:
            raise DataError(
                f"{path}: the column(s) {sorted(missing)} are missing. Needed: file, question, answer; "
                "optional: id, task, split, choices (separated by |), source, licence."
            )
        for number, row in enumerate(reader, start=2):
            extra = {key: item for key, item in row.items() if key and key not in wanted and item}
            if "choices" in extra:
                extra["choices"] = [choice.strip() for choice in extra["choices"].split("|")]
            yield (
                f"{path}:{number}",
                {
                    "id": f"{path.stem}-{number}",
                    "audio": [name.strip() for name in (row["file"] or "").split("|") if name.strip()],
                    "turns": [
                        {"role": "user", "content": row["question"] or ""},
                        {"role": "assistant", "content": row["answer"] or ""},
                    ],
                    **extra,
                },
            )


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet as parquet

    number = 0
    for batch in parquet.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"{path}:{number}", _from_columns(row)


def _dataset_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import datasets

    for number, row in enumerate(datasets.load_from_disk(str(path)), start=1):
        yield f"{path}:{number}", _from_columns(row)


def record_of_columns(row: dict[str, Any], where: str) -> Record:
    """A record of Parquet columns: None where a key is missing, JSON text where the value is free-form.

    Raises:
        DataError: if it breaks the contract.
    """
    return parse_record(_from_columns(row), where)


def _from_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Columns hold None where a record lacks the key, and JSON text where the value is free-form."""
    row = {key: item for key, item in row.items() if item is not None}
    for key in ("provenance", "meta"):
        if isinstance(row.get(key), str):
            row[key] = json.loads(row[key])
    return row


def write_records(path: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Writes `.jsonl` or `.parquet` atomically (a killed writer leaves the old file) and returns the count."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        count = _write_parquet(temporary, records) if path.suffix == ".parquet" else _write_jsonl(temporary, records)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return count


def _write_jsonl(path: str, records: Iterable[Record]) -> int:
    count = 0
    with open(path, "w", encoding="utf-8") as out:
        for record in records:
            out.write(record_line(record))
            count += 1
    return count


def record_line(record: Record) -> str:
    """A record as a line of a `.jsonl` file."""
    return json.dumps(record.to_json(), ensure_ascii=False) + "\n"


def _write_parquet(path: str, records: Iterable[Record]) -> int:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    rows = [record.model_dump(mode="json") for record in records]
    for row in rows:
        row["provenance"], row["meta"] = json.dumps(row["provenance"]), json.dumps(row["meta"])
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    return len(rows)
