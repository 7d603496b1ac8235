"""Records of one's own: a CSV of file, question, answer (or any file of records), checked clip by clip."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lalm.audio.io import probe_audio
from lalm.data.records import Record, scan_records, write_records
from lalm.errors import AudioError, DataError


@dataclass(frozen=True)
class Imported:
    """How many records were written, and what was wrong with those that were not."""

    count: int
    problems: tuple[str, ...]


def import_file(file: Path, out: Path, *, strict: bool = False) -> Imported:
    """Reads records, checks that every clip can be opened, and writes them with paths relative to `out`.

    Raises:
        DataError: for a file that holds no records; with `strict`, at the first broken row.
    """
    records, problems = scan_records(file)
    good = []
    for record in records:
        problem = _clip_problem(record, file.parent)
        if problem:
            problems.append(f"{file} (id '{record.id}'): {problem}")
        else:
            good.append(
                record.model_copy(
                    update={"audio": tuple(_moved(path, file.parent, out.parent) for path in record.audio)}
                )
            )
    if strict and problems:
        raise DataError(problems[0])
    write_records(out, good)
    return Imported(len(good), tuple(problems))


def _clip_problem(record: Record, folder: Path) -> str | None:
    if record.answer is None:
        return "has no answer"
    for path in record.audio:
        try:
            if probe_audio(folder / path).seconds <= 0:
                return f"{path}: is empty"
        except AudioError as error:
            return str(error)
    return None


def _moved(path: str, folder: Path, new_folder: Path) -> str:
    return Path(os.path.relpath((folder / path).resolve(), new_folder.resolve())).as_posix()
