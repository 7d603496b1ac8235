"""What a filter is, and the run that chains filters: records in, kept records out, rejects with reasons, a funnel.

    kept = run_filters(lambda: read_records("train.jsonl"), [Phrases(), Grounding()], funnel, rejects.add)

A filter looks at one record at a time. One that must know the whole set first (an answer quota, a blind baseline)
has `prepare`, which is given its own pass over the records before the run. The run holds one record at a time; what a
filter remembers is its own and said in its docstring.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lalm.data.records import Record
from lalm.errors import DataError

FUNNEL_NAME = "funnel.json"


@dataclass(frozen=True)
class Verdict:
    """What a filter says of one record.

    `reason` is empty for a kept record. `note` goes to the record's provenance under the filter's name: a score, or
    why nothing could be checked.
    """

    kept: bool
    reason: str = ""
    note: Any = "passed"


KEPT = Verdict(True)


def rejected(reason: str, note: Any = None) -> Verdict:
    """A verdict that leaves the record out. `reason` should be one of few texts, so that the funnel can count it."""
    return Verdict(False, reason, note)


class Filter(Protocol):
    """Keeps or rejects a record. `name` stands in the funnel, the sidecar and the provenance."""

    name: str

    def judge(self, record: Record) -> Verdict:
        """The verdict on one record; may remember what it has kept."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A filter that reads the whole set before it judges the first record."""

    def prepare(self, records: Iterable[Record]) -> None: ...


@dataclass
class Step:
    """One filter of a funnel: how many records came, and how many it rejected for which reason."""

    name: str
    entered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def rejected(self) -> int:
        return sum(self.reasons.values())

    @property
    def kept(self) -> int:
        return self.entered - self.rejected


@dataclass
class Funnel:
    """The counts of a chain of filters, in order. `reports` holds what a filter measured of the whole set."""

    steps: list[Step] = field(default_factory=list)
    reports: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        steps = [
            {
                "name": step.name,
                "entered": step.entered,
                "kept": step.kept,
                "reasons": dict(sorted(step.reasons.items())),
            }
            for step in self.steps
        ]
        return {"steps": steps, "reports": self.reports}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Funnel:
        steps = [Step(step["name"], step["entered"], Counter(step["reasons"])) for step in value["steps"]]
        return cls(steps, dict(value["reports"]))

    def save(self, path: Path) -> None:
        """Writes the funnel as JSON, atomically."""
        with atomic_text(path) as out:
            out.write(json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Funnel:
        """Reads what `save` wrote.

        Raises:
            DataError: if the file is no funnel.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: cannot be read as a funnel ({error!r}). Run `lalm data filter` again.") from None


class Rejects:
    """The sidecar of rejected records: one JSON object a line with filter, reason, note and the whole record.

    The file appears under its name when the `with` block ends without an error.
    """

    def __init__(self, path: Path):
        self._text = atomic_text(path)

    def __enter__(self) -> Rejects:
        self._text.__enter__()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._text.__exit__(kind, error, traceback)

    def add(self, name: str, record: Record, verdict: Verdict) -> None:
        """Appends one reject."""
        row = {"id": record.id, "filter": name, "reason": verdict.reason, "note": verdict.note}
        self._text.write(json.dumps(row | {"record": record.to_json()}, ensure_ascii=False) + "\n")


def run_filters(
    source: Callable[[], Iterable[Record]],
    filters: Sequence[Filter],
    funnel: Funnel,
    reject: Callable[[str, Record, Verdict], None] = lambda name, record, verdict: None,
) -> Iterator[Record]:
    """Yields the records that every filter keeps, in order, with each filter's note in `provenance["filters"]`.

    `source` is called once a pass: once for each filter that prepares, once for the run. A record is shown to the
    filters in order and to none after the one that rejects it. `funnel` is filled as records pass.

    Raises:
        DataError: if two filters share a name, since their notes would overwrite each other.
    """
    names = [filter_.name for filter_ in filters]
    if len(set(names)) != len(names):
        raise DataError(f"filters: {names} holds a name twice. Give each filter its own name.")
    for filter_ in filters:
        if isinstance(filter_, Preparing):
            filter_.prepare(source())
    steps = [Step(name) for name in names]
    funnel.steps += steps
    for record in source():
        notes: dict[str, Any] = {}
        for filter_, step in zip(filters, steps, strict=True):
            step.entered += 1
            verdict = filter_.judge(record)
            if not verdict.kept:
                step.reasons[verdict.reason] += 1
                reject(filter_.name, record, verdict)
                break
            notes[filter_.name] = verdict.note
        else:
            yield with_notes(record, notes)
    for filter_ in filters:
        report = getattr(filter_, "report", None)
        if report is not None:
            funnel.reports[filter_.name] = report()


def with_notes(record: Record, notes: dict[str, Any]) -> Record:
    """The record with notes added to `provenance["filters"]`; those of earlier runs stay."""
    if not notes:
        return record
    earlier = record.provenance.get("filters", {})
    return record.model_copy(update={"provenance": {**record.provenance, "filters": {**earlier, **notes}}})


class atomic_text:
    """A UTF-8 text file that appears whole under its name when the `with` block ends, and not at all on an error."""

    def __init__(self, path: Path):
        self.path = Path(path)

    def __enter__(self) -> atomic_text:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, self._temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        self._file = os.fdopen(descriptor, "w", encoding="utf-8", newline="\n")
        return self

    def write(self, text: str) -> None:
        self._file.write(text)

    def __exit__(self, kind, error, traceback) -> None:
        self._file.close()
        if kind is None:
            os.replace(self._temporary, self.path)
        else:
            Path(self._temporary).unlink(missing_ok=True)
