"""Records of a file by number, without holding any: the file is checked once, and an index of it is kept.

    file = open_record_file("data/train.jsonl")
    rows = file.select(splits=("train",), tasks=None)      # numbers of records, in the order of the file
    file[int(rows[0])]                                     # read from the disk

The index lies in the cache, under the path of the file, and is made anew when size or time of change differ. Of each
good record it holds the place of its line and what records are chosen by; of each bad one its problem. A file that is
no JSONL is written as one beside the index, once. Takes 29 bytes a record on the disk and no object in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from lalm.data.records import Record, parse_record, record_rows
from lalm.data.sequences import ReadSequence
from lalm.errors import DataError
from lalm.resources import cache_folder

FORMAT = 1
"""Of the index; rises with every change of what makes a record good."""
ROW = np.dtype([("start", "<i8"), ("bytes", "<i4"), ("words", "<i4"), ("split", "u1"), ("task", "<i4"), ("id", "<i8")])
"""Place and size of the line; words of the answer; numbers of split and task in `about.json`; a hash of the id."""
_ABOUT, _ROWS, _COPY = "about.json", "rows.bin", "records.jsonl"
_BUFFERED_ROWS = 4096


class RecordFile(ReadSequence[Record]):
    """The good records of a file. Made by `open_record_file`."""

    def __init__(self, path: Path, folder: Path):
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        self.path = path
        self.problems: list[str] = about["problems"]
        """Of each bad record, opening with file and line."""
        self.splits: list[str] = about["splits"]
        self.tasks: list[str] = about["tasks"]
        self._lines = path if about["lines"] is None else folder / about["lines"]
        size = (folder / _ROWS).stat().st_size
        self.rows = np.asarray(np.memmap(folder / _ROWS, ROW, mode="r")) if size else np.zeros(0, ROW)
        self._file = self._lines.open("rb")
        self._state = _state(self._file)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Record:
        """
        Raises:
            DataError: if the file was changed since it was opened.
        """
        row = self.rows[index]
        if _state(self._file) != self._state:
            raise DataError(f"{self._lines}: was changed while it is in use. Start the command again.")
        line = os.pread(self._file.fileno(), int(row["bytes"]), int(row["start"]))
        return parse_record(json.loads(line.decode("utf-8-sig")), f"{self._lines}: record {index + 1}")

    def select(self, splits: Sequence[str], tasks: Sequence[str] | None) -> np.ndarray:
        """Numbers of the records of these splits and tasks (None: all), in order."""
        kept = np.isin(self.rows["split"], _codes(self.splits, splits))
        if tasks is not None:
            kept &= np.isin(self.rows["task"], _codes(self.tasks, tasks))
        return np.flatnonzero(kept).astype(np.int32)


def open_record_file(path: str | os.PathLike[str]) -> RecordFile:
    """Opens a file of records (see `lalm.data.records`), checking all of it if that has not been done yet.

    Raises:
        DataError: if there is no such file, or it is of no known kind.
    """
    path = Path(os.path.abspath(path))
    folder = cache_folder() / "records" / hashlib.sha256(str(path).encode()).hexdigest()[:24]
    key = _key(path)
    if not _is_current(folder, key):
        _publish(_indexed(path, key, folder.parent), folder, key)
    return RecordFile(path, folder)


def _key(path: Path) -> str:
    """Changes when the file does. Of a folder, all files count."""
    if not path.exists():
        next(iter(record_rows(path)), None)  # Says what is wrong.
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr((FORMAT, facts)).encode()).hexdigest()


def _is_current(folder: Path, key: str) -> bool:
    try:
        return json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["key"] == key
    except (OSError, ValueError, KeyError):
        return False


def _indexed(path: Path, key: str, parent: Path) -> Path:
    """A new folder with the index of a file."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=".new."))
    problems: list[str] = []
    splits: dict[str, int] = {}
    tasks: dict[str, int] = {}
    copies = path.suffix != ".jsonl" or path.is_dir()
    rows = np.zeros(_BUFFERED_ROWS, ROW)
    filled = place = 0
    with (folder / _ROWS).open("wb") as index, (folder / _COPY).open("wb") as copy:
        for where, value, start, num_bytes in record_rows(path):
            try:
                record = parse_record(value, where)
            except DataError as error:
                problems.append(str(error))
                continue
            if copies:
                line = (json.dumps(record.to_json(), ensure_ascii=False) + "\n").encode()
                copy.write(line)
                start, num_bytes, place = place, len(line), place + len(line)
            split, task = splits.setdefault(record.split, len(splits)), tasks.setdefault(record.task, len(tasks))
            rows[filled] = (start, num_bytes, len((record.answer or "").split()), split, task, _hash(record.id))
            filled += 1
            if filled == len(rows):
                index.write(rows.tobytes())
                filled = 0
        index.write(rows[:filled].tobytes())
    if not copies:
        (folder / _COPY).unlink()
    if _key(path) != key:
        shutil.rmtree(folder, ignore_errors=True)
        raise DataError(f"{path}: was changed while it was read. Start the command again.")
    about = {"key": key, "path": str(path), "problems": problems, "splits": list(splits), "tasks": list(tasks)}
    text = json.dumps({**about, "lines": _COPY if copies else None}, ensure_ascii=False)
    (folder / _ABOUT).write_text(text, encoding="utf-8")
    return folder


def _publish(new: Path, folder: Path, key: str) -> None:
    """Puts the new index in the place of the old one, unless another process has done so meanwhile."""
    for _ in range(5):
        if _is_current(folder, key):
            shutil.rmtree(new, ignore_errors=True)
            return
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".old."))
        try:
            if folder.exists():
                os.replace(folder, old)
            os.replace(new, folder)
            return
        except OSError:
            continue  # The other one was between our two steps.
        finally:
            shutil.rmtree(old, ignore_errors=True)
    raise DataError(f"{folder}: the index of records cannot be written. Remove that folder and try again.")


def _codes(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    return [number for number, name in enumerate(names) if name in wanted]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _state(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
