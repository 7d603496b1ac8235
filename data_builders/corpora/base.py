"""What a corpus is: its name, licence and layout, and a stream of recordings with typed facts.

    corpus file -> Corpus(read=...) -> Recording, Recording, ...   (`rows.py` reads tables, `places.py` finds audio)

A corpus file names what its authors' layout holds and turns one row into one Recording. Bad rows are reported with
file, line and column, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from data_builders.clips import Split
from lalm.errors import DataError

Kind = str
KINDS = ("sound", "speech", "music", "generic")
MAX_MALFORMED = 1000
"""Malformed rows after which reading stops: the file is not what it is taken for."""


@dataclass(frozen=True)
class Audio:
    """Where the samples lie: a file, a member of an archive, a row of a saved dataset, or a part of one of these."""

    path: Path
    member: str | None = None
    """Inside `path`: the name in a tar, or `column:row` of a dataset saved by `datasets`."""
    at: tuple[int, int] | None = None
    """Where the bytes of a tar's member begin, and how many they are."""
    start: float = 0.0
    """Seconds into the file, of a part."""
    seconds: float | None = None
    """Length, where the corpus tells it; the part's, of a part."""
    is_part: bool = False


@dataclass(frozen=True)
class Span:
    """A sound with its times, in seconds from the start of the recording."""

    label: str
    onset: float
    offset: float


@dataclass(frozen=True)
class Recording:
    """One recording with what its corpus says about it. A fact that is not told is empty or None."""

    id: str
    audio: Audio
    split: Split | None = None
    """The corpus's own split; None where it has none, or one that is not for training or scoring."""
    licence: str = ""
    """Where it differs from the corpus's."""
    group: str = ""
    """What a split must not tear apart (speaker, source recording, song); empty: the recording itself."""
    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    transcript: str | None = None
    translations: dict[str, str] = field(default_factory=dict)
    """By English name of the language."""
    language: str | None = None
    """Its English name."""
    speaker: str | None = None
    sex: str | None = None
    emotion: str | None = None
    instrument: str | None = None
    family: str | None = None
    pitch: int | None = None
    """MIDI number of the only note."""
    tempo_bpm: float | None = None
    key: str | None = None
    """As "A minor"."""
    events: tuple[Span, ...] = ()
    exchanges: tuple[tuple[str, str], ...] = ()
    """Questions with their answers."""
    other: Audio | None = None
    """The second recording, where captions tell the difference of two."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What else the corpus says, kept in the provenance."""


FACTS = (
    *("labels", "captions", "transcript", "translations", "language", "speaker", "sex", "emotion", "instrument"),
    *("family", "pitch", "tempo_bpm", "key", "events", "exchanges", "other"),
)
"""The fields of a Recording that questions are made of."""


class BadRow(Exception):
    """A row that cannot be used: the column, what is wrong with it, and whether that is no fault of the table."""

    def __init__(self, column: str, reason: str, *, harmless: bool = False):
        super().__init__(reason)
        self.column, self.reason, self.harmless = column, reason, harmless


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a corpus. `line` counts from 1; 0 where the file has no lines."""

    file: str
    line: int
    column: str
    reason: str
    harmless: bool = False
    """The row is left out for good reason (its audio was withdrawn, or it is on a blacklist): none to stop."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.column}: {self.reason}" if self.column else f"{place}: {self.reason}"


Report = Callable[[Problem], None]


@dataclass(frozen=True)
class Corpus:
    """One corpus. `layout` names what must be in its folder; `read` streams it."""

    name: str
    kind: Kind
    licence: str
    homepage: str
    download: str
    """What a person must download, and where it goes."""
    layout: tuple[str, ...]
    read: Callable[[Path, Report], Iterator[Recording]]
    isolated: bool = False
    """Each recording is the labelled sound and nothing else, so that any part of it may be an event of a scene."""

    def recordings(self, folder: Path, report: Report, *, max_malformed: int = MAX_MALFORMED) -> Iterator[Recording]:
        """Streams the corpus. `report` is given the problem of each row that is left out.

        Raises:
            DataError: for a folder that is not there or lacks a part of the layout, with what to download; after too
                many malformed rows.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. It should hold {self.name}: {self.download}")
        missing = [name for name in self.layout if not any(folder.glob(name))]
        if missing:
            raise DataError(
                f"{folder}: is not {self.name}: there is no {', '.join(missing)}. Expected in the folder: "
                f"{', '.join(self.layout)}. {self.download}"
            )
        ceiling = _Ceiling(report, max_malformed, self.name)
        seen: set[int] = set()
        for recording in self.read(folder, ceiling):
            digest = hash(recording.id)  # A number instead of the text: tens of millions fit.
            if digest in seen:
                ceiling(Problem(str(folder), 0, "id", f"'{recording.id}' stands twice; the first is kept"))
                continue
            seen.add(digest)
            yield recording


@dataclass
class _Ceiling:
    """Passes problems on, and stops the reading after too many malformed rows."""

    report: Report
    limit: int
    name: str
    malformed: int = 0

    def __call__(self, problem: Problem) -> None:
        self.report(problem)
        self.malformed += not problem.harmless
        if self.malformed > self.limit:
            raise DataError(
                f"{problem.file}: more than {self.limit} malformed rows; the last: {problem}. Is this {self.name}, "
                "whole and of the release that the README names? A higher ceiling: --max-malformed."
            )


Item = TypeVar("Item")


def each(rows: Iterable[Item], make: Callable[[Item], Recording | None], report: Report) -> Iterator[Recording]:
    """`make(row)` of every row, in order; a row that raises BadRow is reported by its place, None is left out silently.

    A row is a `rows.Row`, or a list of them, whose first one is named.
    """
    for row in rows:
        try:
            recording = make(row)
        except BadRow as bad:
            first: Any = row[0] if isinstance(row, list) else row
            report(Problem(str(first.path), first.line, bad.column, bad.reason, bad.harmless))
            continue
        if recording is not None:
            yield recording
