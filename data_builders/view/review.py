"""The review file: one line a decision, the last one of a record counts; and the filter that drops what was rejected.

{"file": "train.jsonl", "id": "q1", "verdict": "reject", "note": "two dogs", "at": "2026-01-31T12:00:00+00:00"}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_builders.filters.base import Verdict, rejected
from lalm.data.records import Record
from lalm.errors import DataError

VERDICTS = ("accept", "reject", "clear")
MAX_NOTE_LETTERS = 2000


class ReviewFile:
    """Decisions by file and record id, kept in memory and appended to a JSONL file as they are made."""

    def __init__(self, path: Path):
        """Reads the decisions of earlier sessions.

        Raises:
            DataError: with file and line, for a line that is no decision.
        """
        self.path = path
        self._decisions = {(row["file"], row["id"]): row for row in read_review(path)} if path.exists() else {}

    def add(self, file: str, id_: str, verdict: str, note: str = "") -> dict[str, Any]:
        """Appends a decision and returns it; on disk when this returns.

        Raises:
            DataError: for a verdict that is not known, or a note that is too long.
        """
        if verdict not in VERDICTS:
            raise DataError(f"verdict: {verdict!r} is not known. Accepted: {', '.join(VERDICTS)}.")
        if not isinstance(note, str) or len(note) > MAX_NOTE_LETTERS:
            raise DataError(f"note: must be a text of at most {MAX_NOTE_LETTERS} letters.")
        row = {"file": file, "id": id_, "verdict": verdict, "note": note}
        row["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
        self._decisions[file, id_] = row
        return row

    def verdict(self, file: str, id_: str) -> tuple[str, str]:
        """The decision on a record and its note; empty where there is none."""
        row = self._decisions.get((file, id_))
        return (row["verdict"], row["note"]) if row and row["verdict"] != "clear" else ("", "")

    def counts(self) -> dict[str, int]:
        """How many records are accepted and rejected."""
        verdicts = [row["verdict"] for row in self._decisions.values()]
        return {name: verdicts.count(name) for name in ("accept", "reject")}


class Reviewed:
    """A filter that rejects the records which a person rejected."""

    name = "review"

    def __init__(self, path: Path):
        """
        Raises:
            DataError: if the review file is missing or broken.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such review file. `lalm data view` writes one.")
        self._verdicts: dict[str, dict[str, Any]] = {row["id"]: row for row in read_review(path)}

    def judge(self, record: Record) -> Verdict:
        """Rejects with the person's note."""
        row = self._verdicts.get(record.id)
        if row is None or row["verdict"] == "clear":
            return Verdict(True, note="not reviewed")
        if row["verdict"] == "reject":
            return rejected("a person rejected it", row["note"])
        return Verdict(True, note="accepted by a person")


def read_review(path: Path) -> Iterator[dict[str, Any]]:
    """The decisions of a review file, in order."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                good = isinstance(row["id"], str) and isinstance(row["file"], str) and row["verdict"] in VERDICTS
                row.setdefault("note", "")
            except (ValueError, KeyError, TypeError):
                good = False
            if not good:
                raise DataError(f"{path}:{number}: {line.strip()[:80]!r} is no decision. Correct or remove the line.")
            yield row
