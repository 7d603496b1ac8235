"""Grounding: an answer may name only sounds that the record's metadata supports.

By rule, with no model. The lexicon is every label of the set (and of `synonyms.yaml`); an answer that names one of them
which the record's own events, labels, captions or transcript do not hold is rejected, unless the answer says that it
is absent ("no dog"). Times beyond the end of the clip are rejected too. What is not in the lexicon is not judged, so
this finds invented events, not every untruth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from data_builders.filters.base import KEPT, Verdict, rejected
from data_builders.filters.phrases_filter import plain
from lalm.data.records import Record

LABEL_KEYS = ("events", "labels", "label", "tags", "instruments")
TEXT_KEYS = ("caption", "captions", "transcript", "text", "title", "description", "facts")
NEGATION_WORDS = frozenset(
    ("no", "not", "without", "never", "neither", "nor", "kein", "keine", "sin", "pas", "sans", "non")
)
NEGATION_REACH = 4
"""How many words before a name a negation counts: "there is no sound of a dog"."""
TIME = re.compile(r"\b(\d+(?:\.\d+)?)\s*(?:s|sec|seconds?)\b")
TIME_SLACK_SECONDS = 0.5
NOT_JUDGED = (
    "unanswerable",
    "unanswerable_options",
    "unanswerable_unrelated",
    "translation",
    "transcription",
    "scene_absent",
)
"""Their answers do not describe the sounds of the clip."""


class Grounding:
    """Rejects an answer that names a known sound, or a time, which the metadata does not support.

    A record without metadata is kept with the note "no metadata"; with `strict` it is rejected. Remembers the labels
    of the set.
    """

    name = "grounding"

    def __init__(self, synonyms: Mapping[str, Iterable[str]] | None = None, *, strict: bool = False):
        """`synonyms` maps a label to other names of the same sound, or of kinds of it; None takes synonyms.yaml."""
        table = load_synonyms() if synonyms is None else synonyms
        self.strict = strict
        self._groups: dict[str, set[str]] = {}
        for label, names in table.items():
            members = {plain(label), *map(plain, names)}
            for member in members:
                self._groups.setdefault(member, set()).update(members)
        self._lexicon = set(self._groups)
        self._pattern: re.Pattern[str] | None = None

    def prepare(self, records: Iterable[Record]) -> None:
        """Learns the labels of the set."""
        for record in records:
            self._lexicon.update(plain(label) for label in labels_of(record))
        self._pattern = None

    def judge(self, record: Record) -> Verdict:
        """The verdict on every answer of the conversation."""
        if record.task in NOT_JUDGED or record.answer_type in ("yes_no", "number", "transcript"):
            return Verdict(True, note="not judged")
        supported, known_text = self._support(record)
        if not supported and not known_text:
            return rejected("has no metadata to check against") if self.strict else Verdict(True, note="no metadata")
        end = _seconds(record)
        for turn in record.turns:
            if turn.role != "assistant":
                continue
            text = plain(turn.content)
            for name in self._named(text):
                if name not in supported and not _mentions(known_text, name):
                    return rejected("names a sound that the metadata does not", name)
            late = next((time for time in map(float, TIME.findall(text)) if end and time > end + TIME_SLACK_SECONDS), 0)
            if late:
                return rejected("names a time after the end of the clip", f"{late:g} s of {end:g} s")
        return KEPT

    def _support(self, record: Record) -> tuple[set[str], str]:
        """The labels of a record with all names of the same sound, and its captions and transcript as one text."""
        labels = {plain(label) for label in labels_of(record)}
        for label in tuple(labels):
            labels |= self._groups.get(label, set())
        text = " . ".join(plain(text) for text in texts_of(record))
        for name, group in self._groups.items():
            if text and _mentions(text, name):
                labels |= group
        return labels, " . ".join([text, *sorted(labels)]) if text or labels else ""

    def _named(self, text: str) -> Iterator[str]:
        """The lexicon's names in a text that are not said to be absent, longest first where they overlap."""
        if self._pattern is None:
            names = sorted(filter(None, self._lexicon), key=lambda name: (-len(name), name))
            self._pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, names)) + r")(?:s|es)?(?!\w)")
        for found in self._pattern.finditer(text) if self._lexicon else ():
            clause = re.split(r"[.;,:!?]|\bbut\b", text[: found.start()])[-1]
            if not NEGATION_WORDS & set(clause.split()[-NEGATION_REACH:]):
                yield found.group(1)


@cache
def load_synonyms() -> dict[str, tuple[str, ...]]:
    """The shipped table: label -> other names of the same sound or of kinds of it."""
    file = resources.files("data_builders.filters").joinpath("synonyms.yaml")
    return {label: tuple(names) for label, names in yaml.safe_load(file.read_text(encoding="utf-8")).items()}


def labels_of(record: Record) -> Iterator[str]:
    """Every label that the metadata gives the clip: of events, label lists, and those kept in the provenance."""
    for place in (record.meta, record.provenance):
        for key in LABEL_KEYS:
            yield from _labels(place.get(key))


def texts_of(record: Record) -> Iterator[str]:
    """Captions, transcripts and other texts that the metadata gives the clip."""
    for place in (record.meta, record.provenance):
        for key in TEXT_KEYS:
            value = place.get(key)
            yield from (item for item in ([value] if isinstance(value, str) else value or ()) if isinstance(item, str))


def _labels(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _labels(value.get("label"))
    elif isinstance(value, Iterable):
        for item in value:
            yield from _labels(item)


def _mentions(text: str, name: str) -> bool:
    # Most names stand nowhere in a text, which is found out at once without the pattern.
    return name in text and re.search(rf"(?<!\w){re.escape(name)}(?:s|es)?(?!\w)", text) is not None


def _seconds(record: Record) -> float:
    value = record.meta.get("seconds", record.meta.get("duration", 0))
    return float(value) if isinstance(value, (int, float)) else 0.0
