"""What is known about a clip before anybody writes about it: the only thing that a writing model is shown.

A file of facts is JSONL, one clip a row: {"id": "k1", "audio": ["clips/k1.flac"], "seconds": 6.0, "captions": ["A dog
barks."], "events": [{"label": "dog", "onset": 0.5, "offset": 1.2}]}. A file of records serves too: rows about the same
audio are merged, their questions become known questions, and `meta` is searched for the same names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lalm.data.records import AnswerType, Record, Split, read_records
from lalm.errors import DataError

_CAPTION_TASKS = {"caption", "captioning", "audio_caption", "music_caption", "description"}
_TRANSCRIPT_TASKS = {"transcription", "asr"}
_SAY_NOTHING = {"unanswerable", "translation"}
"""Their answers tell nothing of the sound itself."""
_DENIALS = {"0", "false", "no", "none", "not", "zero"}
"""First words of an answer that says something is not there."""
_ALIASES = {"caption": "captions", "labels": "tags", "label": "tags", "text": "transcript", "instrument": "instruments"}
_KNOWN_IN_META = (
    "captions", "tags", "events", "transcript", "language", "speaker", "emotion", "instruments", "seconds", "attributes"
)  # fmt: skip


class TimedEvent(BaseModel):
    """One sound; onset and offset in seconds from the start of the clip, None where only its presence is known."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    label: str = Field(min_length=1)
    onset: float | None = Field(default=None, ge=0)
    offset: float | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _duration_gives_the_offset(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("offset") is None and "duration" in value and "onset" in value:
            return {**value, "offset": round(float(value["onset"]) + float(value["duration"]), 3)}
        return value

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> TimedEvent:
        if self.onset is not None and self.offset is not None and self.offset < self.onset:
            raise ValueError(f"'{self.label}' ends at {self.offset} s before it begins at {self.onset} s")
        return self


class KnownQuestion(BaseModel):
    """A question about the clip whose answer is certain."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    choices: tuple[str, ...] | None = None
    answer_type: AnswerType = "open"


class Facts(BaseModel):
    """One clip, or several heard together, and what is known of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str = Field(min_length=1)
    audio: tuple[str, ...] = Field(min_length=1)
    seconds: float | None = Field(default=None, gt=0)
    captions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    events: tuple[TimedEvent, ...] = ()
    transcript: str | None = None
    language: str | None = None
    speaker: str | None = None
    emotion: str | None = None
    instruments: tuple[str, ...] = ()
    attributes: dict[str, str | float] = Field(default_factory=dict)
    """Anything else that is certain: {"tempo": "92 beats per minute", "key": "G major"}."""
    questions: tuple[KnownQuestion, ...] = ()
    source: str = ""
    split: Split = "train"
    licence: str = ""
    provenance: dict[str, Any] = Field(default_factory=dict)

    def digest(self) -> str:
        """sha256 over everything, by which a journal knows the clip's facts again."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    def timed_events(self) -> list[TimedEvent]:
        """Events whose onset is known, in the order in which they begin."""
        return sorted((e for e in self.events if e.onset is not None), key=lambda e: (e.onset, e.label))

    def known(self) -> dict[str, Any]:
        """The lines and the length, as rows keep them in `meta`, where the filters of `lalm data filter` look.

        A known question stands there only with what it says is heard: a dog that was asked for in vain is none.
        """
        certain = filter(None, map(_bears_out, self.questions))
        return {"facts": [*self.lines(questions=False), *certain]} | (
            {} if self.seconds is None else {"seconds": self.seconds}
        )

    def lines(self, *, questions: bool = True) -> list[str]:
        """What is known, line by line as a prompt shows it: all that an answer may rest on.

        The length is no line, since nothing follows from it. `questions`: also the known questions with their answers.
        """
        lines = [f"description: {caption}" for caption in self.captions]
        lines += [f"sounds: {', '.join(self.tags)}"] if self.tags else []
        lines += [_event_line(event) for event in self.events]
        singles = {
            "words spoken": self.transcript,
            "language spoken": self.language,
            "speaker": self.speaker,
            "emotion of the voice": self.emotion,
            "instruments": ", ".join(self.instruments),
        }
        lines += [f"{name}: {value}" for name, value in singles.items() if value]
        lines += [f"{name}: {value}" for name, value in sorted(self.attributes.items())]
        if questions:
            lines += [f"{known.question} {known.answer}" for known in self.questions]
        return lines


def _bears_out(known: KnownQuestion) -> str:
    """What a known question says of the clip, without the sounds that it names only to deny or to offer them."""
    first = re.findall(r"\w+", known.answer.casefold())[:1]
    if _DENIALS.intersection(first):
        return ""
    offers = known.choices is not None and first != ["yes"]
    return known.answer if offers else f"{known.question} {known.answer}"


def _event_line(event: TimedEvent) -> str:
    if event.onset is None:
        return f"event: {event.label}"
    until = "" if event.offset is None else f" to {event.offset:.1f} s"
    return f"event: {event.label}, from {event.onset:.1f} s{until}"


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value that is hashed."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def read_facts(path: Path) -> list[Facts]:
    """Facts of a `.jsonl` of facts, or of any file of records, in the order of the file.

    Raises:
        DataError: with file and line, for a broken row or an id that stands twice.
    """
    found = list(_rows_of_facts(path)) if _holds_facts(path) else _of_records(path)
    seen: set[str] = set()
    for facts in found:
        if facts.id in seen:
            raise DataError(f"{path}: the id '{facts.id}' stands twice. Every clip needs an id of its own.")
        seen.add(facts.id)
    return found


def facts_of_record(record: Record) -> Facts:
    """What one record knows about its audio."""
    known: dict[str, Any] = {}
    for key, value in record.meta.items():
        name = _ALIASES.get(key, key)
        if name in _KNOWN_IN_META and value not in (None, ""):
            wants_list = name in ("captions", "tags", "events", "instruments")
            known[name] = [value] if wants_list and not isinstance(value, list) else value
    if record.answer and record.task in _CAPTION_TASKS:
        known["captions"] = [*known.get("captions", []), record.answer]
    elif record.answer and (record.task in _TRANSCRIPT_TASKS or record.answer_type == "transcript"):
        known["transcript"] = record.answer
    elif record.answer and record.task not in _SAY_NOTHING and len(record.prompt_turns()) == 1:
        question = KnownQuestion(
            question=record.question, answer=record.answer, choices=record.choices, answer_type=record.answer_type
        )
        known["questions"] = [question]
    return Facts(
        id=record.id,
        audio=record.audio,
        source=record.source,
        split=record.split,
        licence=record.licence,
        provenance=record.provenance,
        **known,
    )


def _holds_facts(path: Path) -> bool:
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig") as lines:
        first = next((line for line in lines if line.strip()), "{}")
    return '"turns"' not in first


def _rows_of_facts(path: Path) -> Iterator[Facts]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield Facts.model_validate_json(line)
            except ValidationError as error:
                problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
                raise DataError(f"{path}:{number}: is no row of facts: {problems}") from None


def _of_records(path: Path) -> list[Facts]:
    merged: dict[tuple[str, ...], Facts] = {}
    for record in read_records(path):
        if not record.audio:
            continue
        try:
            facts = facts_of_record(record)
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"]))
            raise DataError(f"{path} (id '{record.id}'): meta.{place}: {problem['msg']}") from None
        known = merged.get(facts.audio)
        merged[facts.audio] = facts if known is None else _joined(known, facts)
    return list(merged.values())


def _joined(known: Facts, more: Facts) -> Facts:
    """Both together; what the first says of a single thing stays."""
    update: dict[str, Any] = {}
    for name in ("captions", "tags", "events", "instruments", "questions"):
        update[name] = tuple(dict.fromkeys((*getattr(known, name), *getattr(more, name))))
    for name in ("seconds", "transcript", "language", "speaker", "emotion"):
        update[name] = getattr(known, name) if getattr(known, name) is not None else getattr(more, name)
    update["attributes"] = {**more.attributes, **known.attributes}
    return known.model_copy(update=update)
