"""From written clips to records: every task asks until its quota is full, guarded against guessable answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from data_builders.clips import Clip, Split, seeded
from data_builders.questions import FAMILIES, PAIRED, IllPosed, Question, Subject, ask
from data_builders.questions.balance import AnswerBalance
from data_builders.questions.base import Context
from data_builders.selection import StoredClip, StoredScene
from data_builders.wordings import ENGLISH, fill, load_wordings
from data_builders.writing import Written
from lalm.data.records import Record, Turn

TRIES = 4
ROUNDS = {
    "scene_presence": 3,
    "scene_order": 3,
    "scene_count": 2,
    "scene_compare": 2,
    "sound_name": 2,
    "instrument_name": 2,
    "description": 1,
}
"""How often one clip may be asked by one family, in different words or for another answer. Others ask once."""


@dataclass(frozen=True)
class Asked:
    """The records of one split, and what was not asked: counts by (task, reason)."""

    records: tuple[Record, ...]
    refused: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Ready:
    """One written clip or scene with what all questions about it share, worked out once."""

    item: StoredClip | StoredScene
    written: Written

    @property
    def id(self) -> str:
        return self.item.id

    @cached_property
    def subject(self) -> Subject:
        if isinstance(self.item, StoredScene):
            return Subject(self.id, scene=self.written.scene)
        return Subject(self.id, clip=self.item.clip, original=self.item.variant is None)

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        if isinstance(self.item, StoredScene):
            return self.item.plan.clips
        return (self.item.clip,)

    @cached_property
    def provenance(self) -> dict[str, object]:
        return {
            "groups": sorted({clip.group for clip in self.clips}),
            "clips": [clip.provenance | {"id": clip.id} for clip in self.clips],
        }

    @cached_property
    def changed(self) -> dict[str, object]:
        """What was done to the recordings, for the provenance."""
        found: dict[str, object] = {}
        if not self.written.scene and isinstance(self.item, StoredClip) and self.item.variant:
            found["variant"] = self.item.variant
        if self.item.telephone:
            found["low_passed"] = True
        return found

    @cached_property
    def meta(self) -> dict[str, object]:
        found: dict[str, object] = {"seconds": self.written.seconds}
        if self.written.scene:
            found["events"] = self.written.scene.to_json()
            if self.written.scene.effects:
                found["effects"] = self.written.scene.effects
        elif self.clips[0].language:
            found["language"] = self.clips[0].language
        return found

    @cached_property
    def source(self) -> str:
        return "+".join(sorted({clip.source for clip in self.clips}))

    @cached_property
    def licence(self) -> str:
        return " and ".join(sorted({clip.licence for clip in self.clips}))


def ask_all(
    split: Split,
    stored: Sequence[StoredClip | StoredScene],
    written: Mapping[str, Written],
    context: Context,
    quotas: Mapping[str, int],
    seed: int,
    *,
    rounds: Mapping[str, int] = ROUNDS,
    languages: Sequence[str] = (ENGLISH,),
) -> Asked:
    """Asks every task of the written clips of one split, in an order drawn by seed, until the task's quota is full.

    `languages` are those of the questions; answers are English. A task without a wording in one is asked in English.
    """
    here = sorted(
        (Ready(item, written[item.id]) for item in stored if item.split == split and item.id in written),
        key=lambda ready: ready.id,
    )
    balance = AnswerBalance()
    refused: dict[str, Counter[str]] = {task: Counter() for task in FAMILIES}
    records: list[Record] = []
    for task, quota in quotas.items():
        order = list(here)
        seeded(seed, "order", split, task).shuffle(order)
        asked: set[tuple[str, str]] = set()
        count = 0
        for number in range(rounds.get(task, 1) if split == "train" else 1):
            for place, ready in enumerate(order):
                if count >= quota:
                    break
                rng = cast(random.Random, LazyRandom(seed, "ask", split, task, ready.id, number))
                other = order[(place + 1 + number) % len(order)] if task in PAIRED and len(order) > 1 else None
                question = _well_posed(task, ready, other, context, balance, refused[task], rng)
                if question is None:
                    continue
                language = rng.choice(languages) if len(languages) > 1 else languages[0]
                text = _worded(question, rng, language)
                if (ready.id, text) not in asked:
                    asked.add((ready.id, text))
                    records.append(_record(question, text, ready, other, split, number, language, rng))
                    count += 1
    return Asked(tuple(records), {task: dict(counts) for task, counts in refused.items() if counts})


class LazyRandom:
    """`seeded(*names)`, made when it is first drawn from: most families see that they have no question before that."""

    def __init__(self, *names: object):
        self._names = names
        self._rng: random.Random | None = None

    def __getattr__(self, name: str) -> Any:
        if self._rng is None:
            self._rng = seeded(*self._names)
        found = self.__dict__[name] = getattr(self._rng, name)
        return found

    @property
    def untouched(self) -> bool:
        return self._rng is None


def _well_posed(task, ready: Ready, other: Ready | None, context, balance, refused, rng) -> Question | None:
    subject = ready.subject
    if other is not None:
        subject = Subject(subject.id, subject.clip, subject.scene, subject.original, other.subject)
    reason = ""
    for _ in range(TRIES):
        question = ask(task, subject, context, rng)
        if isinstance(question, IllPosed):
            reason = question.reason
            if rng.untouched:
                break
        elif balance.accepts(question):
            return question
        else:
            reason = "the answer leads"
    refused[reason] += 1
    return None


def _worded(question: Question, rng: random.Random, language: str) -> str:
    task, _, name = question.wording.rpartition("/")
    task = task or question.task
    return fill(task, name, rng.randrange(len(load_wordings(task, language)[name])), question.slots, language)


def _record(question, text, ready: Ready, other: Ready | None, split, number, language, rng) -> Record:
    heard = [ready] if other is None else [ready, other]
    provenance: dict[str, object] = {
        "groups": ready.provenance["groups"],
        "clips": ready.provenance["clips"],
        "wording": f"{question.task}/{question.wording}",
        **ready.changed,
    }
    meta: dict[str, object] = {**ready.meta, **question.meta}
    if other is not None:
        provenance["groups"] = sorted({group for part in heard for group in part.provenance["groups"]})  # type: ignore[attr-defined]
        provenance["clips"] = [clip for part in heard for clip in part.provenance["clips"]]  # type: ignore[attr-defined]
        meta = {"seconds": round(sum(part.written.seconds for part in heard), 3), **question.meta}
        meta["clips"] = [part.meta for part in heard]
    if language != ENGLISH:
        meta["question_language"] = language
    turns = []
    for earlier in question.earlier:
        turns.append(Turn(role="user", content=_worded(earlier, rng, language)))
        turns.append(Turn(role="assistant", content=earlier.answer))
    turns += (Turn(role="user", content=text), Turn(role="assistant", content=question.answer))
    return Record(
        id=f"{question.task}-{ready.id}" + (f"-{number + 1}" if number else ""),
        audio=tuple(f"clips/{part.written.file}" for part in heard),
        turns=tuple(turns),
        task=question.task,
        choices=question.choices,
        answer_type=question.answer_type,
        source="+".join(sorted({part.source for part in heard})),
        licence=" and ".join(sorted({part.licence for part in heard})),
        split=split,
        provenance=provenance,
        meta=meta,
    )
