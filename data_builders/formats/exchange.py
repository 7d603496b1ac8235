"""A file of a format into records, and records into a file of a format: clips checked, problems listed, a ceiling."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from data_builders.formats.base import Format, checked_name
from data_builders.formats.files import read_rows, write_rows
from data_builders.formats.rows import misses, record_of_row, row_of_record
from lalm.audio.io import probe_audio
from lalm.data.records import Record, read_records, write_records
from lalm.errors import AudioError, DataError

RECORDS_NAME = "records.jsonl"
MAX_PROBLEMS = 100
REMEMBERED_CLIPS = 10_000


@dataclass
class Exchanged:
    """How many records went through, what was wrong with the others, and what the format does not say itself."""

    count: int = 0
    problems: list[str] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)

    def add(self, problem: str, ceiling: int) -> None:
        """
        Raises:
            DataError: when there are more problems than the ceiling.
        """
        self.problems.append(problem)
        if len(self.problems) > ceiling:
            raise DataError(f"{problem}\nMore than {ceiling} rows are broken (--max-problems); nothing was written.")


def import_file(
    form: Format,
    file: Path,
    out: Path,
    *,
    clips: Path | None = None,
    strip: str = "",
    check_clips: bool = True,
    max_problems: int = MAX_PROBLEMS,
) -> Exchanged:
    """Writes `out`/records.jsonl; clips are named in the file relative to `clips` (its own folder), in it from `out`.

    Raises:
        DataError: for a file that is not of the format, or more broken rows than `max_problems`.
    """
    done = Exchanged()
    root = clips or file.parent
    out.mkdir(parents=True, exist_ok=True)

    def good() -> Iterator[Record]:
        for where, row, hints in read_rows(form, file):
            try:
                if isinstance(row, str):
                    raise DataError(f"{where}: {row}")
                record = record_of_row(form, row, hints, where)
                if record.answer is None:
                    raise DataError(f"{where}: has no answer")
                names = [_inside(root, name.removeprefix(strip), where) for name in record.audio]
                for path in names if check_clips else ():
                    if problem := _clip_problem(path):
                        raise DataError(f"{where}: {problem}")
            except DataError as error:
                done.add(str(error), max_problems)
                continue
            yield record.model_copy(update={"audio": tuple(_relative(path, out) for path in names)})

    done.count = write_records(out / RECORDS_NAME, good())
    return done


def export_file(
    form: Format,
    records: Path,
    file: Path,
    *,
    clips: Path | None = None,
    plain: bool = False,
    only_whole: bool = False,
    max_problems: int = MAX_PROBLEMS,
) -> Exchanged:
    """Writes records as a file whose clips are named relative to `clips` (the folder of the records).

    `only_whole` leaves out conversations that the format cannot say; otherwise they are counted in `missed`.

    Raises:
        DataError: for records that cannot be read, or more that cannot be written than `max_problems`.
    """
    done = Exchanged()
    root = clips or records.parent

    def good() -> Iterator[Record]:
        for record in read_records(records):
            try:
                names = [_from_root(records.parent / name, root, record.id) for name in record.audio]
            except DataError as error:
                done.add(str(error), max_problems)
                continue
            record = record.model_copy(update={"audio": tuple(names)})
            lacks = misses(record, row_of_record(form, record)[1], form)
            done.missed.update(lacks)
            if not (only_whole and lacks):
                yield record

    done.count = write_rows(form, file, good(), plain=plain)
    return done


def _inside(root: Path, name: str, where: str) -> Path:
    try:
        path = root / checked_name(name)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{where}: audio {name!r}: a link leads out of {root}.")
    return path


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder.resolve())).as_posix()


def _from_root(path: Path, root: Path, id_: str) -> str:
    name = Path(os.path.relpath(path.absolute(), root.absolute())).as_posix()
    if name.startswith("../"):
        raise DataError(f"record '{id_}': {name}: lies outside {root}. Name the folder of the clips with --clips.")
    return checked_name(name)


@lru_cache(REMEMBERED_CLIPS)
def _clip_problem(path: Path) -> str | None:
    try:
        return None if probe_audio(path).seconds > 0 else f"{path}: is empty"
    except AudioError as error:
        return str(error)
