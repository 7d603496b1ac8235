"""The journal: every reply that was paid for, one JSON line each, written before anybody uses it.

    {"key": "<sha256>", "kind": "reply", "value": {...}, "cost": 0.0004}

It is append-only and held by one writer at a time. A process killed at any moment leaves at most one torn last line,
which was never used and is cut off when the journal is opened again. Replies stay in the file; memory holds an offset
for each.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from data_builders.llm_writer.facts import canonical_json
from lalm.errors import DataError, MissingPackageError

FsyncPolicy = Literal["always", "interval", "never"]
"""`always`: a power cut loses nothing; `interval`: at most a second; `never`: what the system had not written. A killed
process loses nothing under any of them, because every line is handed to the system whole."""
FSYNC_SECONDS = 1.0


class Journal:
    """Opened for appending; use as a context manager.

    Raises:
        DataError: if another writer holds it, or a line in its middle is damaged.
    """

    def __init__(self, path: Path, *, fsync: FsyncPolicy = "interval"):
        try:
            from filelock import FileLock, Timeout
        except ImportError:
            raise MissingPackageError("filelock", "a journal", "data") from None

        self.path = path
        self.cost = 0.0
        """What all lines together cost, in the currency of the prices that were given."""
        self._fsync = fsync
        self._synced_at = time.monotonic()
        self._offsets: dict[tuple[str, bytes], int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{path}.lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise DataError(
                f"{path}: another writer is using this journal. Wait for it to end, or give --journal another file."
            ) from None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                self._end = self._read_all()
            except BaseException:
                os.close(self._file)
                raise
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def close(self) -> None:
        """Writes through to the disk and lets others in."""
        if self._fsync != "never":
            os.fsync(self._file)
        os.close(self._file)
        self._lock.release()

    def get(self, kind: str, key: str) -> Any | None:
        """The value under a key, None where there is none."""
        offset = self._offsets.get((kind, bytes.fromhex(key)))
        return None if offset is None else json.loads(self._line_at(offset))["value"]

    def put(self, kind: str, key: str, value: Any, *, cost: float = 0.0) -> None:
        """Appends one line. A key that is there already keeps its first value."""
        if (kind, bytes.fromhex(key)) in self._offsets:
            return
        self._append({"key": key, "kind": kind, "value": value, "cost": cost})

    def note_lost(self, key: str, reason: str, *, cost: float) -> None:
        """An attempt whose reply was lost and that may have been billed: it counts towards the ceiling of a budget."""
        self._append({"key": key, "kind": "lost", "value": reason, "cost": cost})

    def _append(self, entry: dict[str, Any]) -> None:
        line = canonical_json(entry).encode() + b"\n"
        written = os.write(self._file, line)
        if written != len(line):
            os.ftruncate(self._file, self._end)
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes could be written; is the disk full?")
        self._remember(entry, self._end)
        self._end += len(line)
        now = time.monotonic()
        if self._fsync == "always" or (self._fsync == "interval" and now - self._synced_at >= FSYNC_SECONDS):
            os.fsync(self._file)
            self._synced_at = now

    def _remember(self, entry: dict[str, Any], offset: int) -> None:
        self.cost += entry["cost"]
        if entry["kind"] != "lost":
            self._offsets.setdefault((entry["kind"], bytes.fromhex(entry["key"])), offset)

    def _line_at(self, offset: int) -> bytes:
        parts, size = [], 4096
        while True:
            part = os.pread(self._file, size, offset)
            end = part.find(b"\n")
            parts.append(part if end < 0 else part[:end])
            if end >= 0 or not part:
                return b"".join(parts)
            offset += len(part)

    def _read_all(self) -> int:
        """Reads every line and returns the end of the last whole one, where the file is cut."""
        end = 0
        with open(self.path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n") or not line.strip(b"\0\n"):
                    break  # Torn by a kill, or blocks that a power cut left empty: nothing after it was ever used.
                try:
                    entry = json.loads(line)
                    self._remember(entry, end)
                except (ValueError, KeyError, TypeError):
                    if lines.read(1):
                        raise DataError(
                            f"{self.path}:{number}: this line of the journal is damaged. Delete it; its request is "
                            "then asked again."
                        ) from None
                    break
                end += len(line)
        os.ftruncate(self._file, end)
        return end
