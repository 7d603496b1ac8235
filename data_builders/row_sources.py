"""Sources of records that can be read from any row on: what lets several processes write one set.

`count()` rows; `rows(start, stop)` yields records start to stop - 1; `identity()` tells whether it is still the same
source. All are picklable and hold no rows.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lalm.data.records import Record, parse_record, record_of_columns
from lalm.errors import DataError

STRIDE = 1000
"""Rows of a JSONL file between two remembered positions."""


class RowSource(Protocol):
    """Records by number."""

    def count(self) -> int: ...

    def rows(self, start: int, stop: int) -> Iterator[Record]: ...

    def identity(self) -> str: ...


@dataclass(frozen=True)
class MadeRows:
    """Rows that a function of their number makes; `name` is the identity, and must change with the function."""

    name: str
    num_rows: int
    make: Callable[[int], Record]

    def count(self) -> int:
        return self.num_rows

    def rows(self, start: int, stop: int) -> Iterator[Record]:
        return map(self.make, range(start, stop))

    def identity(self) -> str:
        return f"{self.name}:{self.num_rows}"


@dataclass(frozen=True)
class JsonlRows:
    """A JSONL file with the byte position of every STRIDE-th row: 8 bytes for a thousand rows."""

    path: Path
    num_rows: int
    positions: array = field(repr=False)
    sha256: str

    @classmethod
    def open(cls, path: Path) -> JsonlRows:
        """Reads the file once, a line at a time."""
        digest, positions, count, place = hashlib.sha256(), array("q"), 0, 0
        with path.open("rb") as lines:
            for line in lines:
                digest.update(line)
                if line.strip():
                    if count % STRIDE == 0:
                        positions.append(place)
                    count += 1
                place += len(line)
        return cls(path, count, positions, digest.hexdigest())

    def count(self) -> int:
        return self.num_rows

    def rows(self, start: int, stop: int) -> Iterator[Record]:
        """
        Raises:
            DataError: at a row that is no record, with its number among the rows that are not blank.
        """
        if start >= min(stop, self.num_rows):
            return
        number = start - start % STRIDE
        with self.path.open("rb") as lines:
            lines.seek(self.positions[start // STRIDE])
            for line in lines:
                if not line.strip():
                    continue
                if number >= stop:
                    return
                if number >= start:
                    where = f"{self.path}: row {number + 1}"
                    try:
                        value = json.loads(line.decode("utf-8-sig"))
                    except ValueError as error:
                        raise DataError(f"{where}: is no JSON ({error}). Correct or remove the line.") from None
                    yield parse_record(value, where)
                number += 1

    def identity(self) -> str:
        return self.sha256


@dataclass(frozen=True)
class ParquetRows:
    """A Parquet file, read by row groups."""

    path: Path
    num_rows: int
    sha256: str

    @classmethod
    def open(cls, path: Path) -> ParquetRows:
        """Reads the footer, and the bytes for the digest."""
        import pyarrow.parquet as parquet

        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, parquet.read_metadata(path).num_rows, digest)

    def count(self) -> int:
        return self.num_rows

    def rows(self, start: int, stop: int) -> Iterator[Record]:
        import pyarrow.parquet as parquet

        file = parquet.ParquetFile(self.path)
        first = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if first < stop and first + size > start:
                number = first
                for batch in file.iter_batches(row_groups=[group]):
                    for row in batch.to_pylist():
                        if start <= number < stop:
                            yield record_of_columns(row, f"{self.path}: row {number + 1}")
                        number += 1
            first += size

    def identity(self) -> str:
        return self.sha256


def open_rows(path: Path) -> RowSource:
    """The source of a file of records.

    Raises:
        DataError: if it is missing or neither .jsonl nor .parquet.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Name a .jsonl or .parquet file of records.")
    if path.suffix not in (".jsonl", ".parquet"):
        raise DataError(f"{path}: cannot be read in parts. Accepted: .jsonl, .parquet; `lalm data import` makes one.")
    return ParquetRows.open(path) if path.suffix == ".parquet" else JsonlRows.open(path)
