"""From written clips to records: every task asks until its quota is full, guarded against guessable answers."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from data_builders.clips import Clip, Split, seeded
from data_builders.draws import Draws
from data_builders.questions import FAMILIES, PAIRED, IllPosed, Question, Subject, ask
from data_builders.questions.balance import AnswerBalance
from data_builders.questions.base import Context
from data_builders.selection import StoredClip, StoredScene
from data_builders.wordings import ENGLISH, fill, load_wordings
from data_builders.writing import Written

TRIES = 4
LEADS = IllPosed("the answer leads")
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
    """The records of one split as JSON objects, and what was not asked: counts by (task, reason).

    Rows are validated by whoever reads them (`parse_record`): once, and not here.
    """

    rows: tuple[dict[str, Any], ...]
    refused: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Ready:
    """One written clip or scene with what all questions about it share, worked out once."""

    item: StoredClip | StoredScene
    written: Written

    @cached_property
    def id(self) -> str:
        return self.item.id

    @cached_property
    def subject(self) -> Subject:
        if isinstance(self.item, StoredScene):
            return Subject(self.id, scene=self.written.scene)
        return Subject(self.id, clip=self.item.clip, original=self.item.variant is None, features=self.written.features)

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        if isinstance(self.item, StoredScene):
            return self.item.plan.clips
        return (self.item.clip,)

    @cached_property
    def groups(self) -> list[str]:
        return sorted({clip.group for clip in self.clips})

    @cached_property
    def clip_provenance(self) -> list[dict[str, object]]:
        return [clip.provenance | {"id": clip.id} for clip in self.clips]

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
    with _nothing_collected():
        return _asked(split, stored, written, context, quotas, seed, rounds, languages)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Without the collector of cycles: rows make none, are all kept, and would be looked through again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _asked(
    split: Split,
    stored: Sequence[StoredClip | StoredScene],
    written: Mapping[str, Written],
    context: Context,
    quotas: Mapping[str, int],
    seed: int,
    rounds: Mapping[str, int],
    languages: Sequence[str],
) -> Asked:
    here = sorted(
        (Ready(item, written[item.id]) for item in stored if item.split == split and item.id in written),
        key=lambda ready: ready.id,
    )
    balance, draws = AnswerBalance(), Draws()
    refused: dict[str, Counter[str]] = {task: Counter() for task in FAMILIES}
    rows: list[dict[str, Any]] = []
    for task, quota in quotas.items():
        order = list(here)
        seeded(seed, "order", split, task).shuffle(order)
        pairs, prefix = task in PAIRED and len(order) > 1, f"{seed}:ask:{split}:{task}"
        asked: set[tuple[str, str]] = set()
        never: dict[str, str] = {}
        count = 0
        for number in range(rounds.get(task, 1)):
            for place, ready in enumerate(order):
                if count >= quota:
                    break
                if ready.id in never:
                    refused[task][never[ready.id]] += 1
                    continue
                draws.begin(prefix, ready.id, number)
                other = order[(place + 1 + number) % len(order)] if pairs else None
                question = _well_posed(task, ready, other, context, balance, draws)
                if isinstance(question, IllPosed):
                    refused[task][question.reason] += 1
                    if draws.untouched and other is None and question is not LEADS:
                        never[ready.id] = question.reason
                    continue
                language = draws.choice(languages) if len(languages) > 1 else languages[0]
                text = _worded(question, draws, language)
                if (ready.id, text) not in asked:
                    asked.add((ready.id, text))
                    rows.append(_row(question, text, ready, other, split, number, language, draws))
                    count += 1
    return Asked(tuple(rows), {task: dict(counts) for task, counts in refused.items() if counts})


def _well_posed(
    task: str, ready: Ready, other: Ready | None, context: Context, balance: AnswerBalance, draws: Draws
) -> Question | IllPosed:
    """A question whose answer does not lead, or why there is none. A family that did not draw is asked once."""
    subject = ready.subject
    if other is not None:
        subject = replace(subject, second=other.subject)
    result: Question | IllPosed = IllPosed("no family")
    for _ in range(TRIES):
        result = ask(task, subject, context, draws)
        if isinstance(result, IllPosed):
            if draws.untouched:
                break
        elif balance.accepts(result):
            return result
        else:
            result = LEADS
    return result


def _worded(question: Question, rng: random.Random, language: str) -> str:
    task, _, name = question.wording.rpartition("/")
    task = task or question.task
    return fill(task, name, rng.randrange(len(load_wordings(task, language)[name])), question.slots, language)


def _row(
    question: Question,
    text: str,
    ready: Ready,
    other: Ready | None,
    split: Split,
    number: int,
    language: str,
    rng: random.Random,
) -> dict[str, Any]:
    provenance: dict[str, object] = {
        "groups": ready.groups,
        "clips": ready.clip_provenance,
        "wording": f"{question.task}/{question.wording}",
        **ready.changed,
    }
    meta: dict[str, object] = {**ready.meta, **question.meta}
    audio, source, licence = [f"clips/{ready.written.file}"], ready.source, ready.licence
    if other is not None:
        provenance["groups"] = sorted({*ready.groups, *other.groups})
        provenance["clips"] = ready.clip_provenance + other.clip_provenance
        meta = {"seconds": round(ready.written.seconds + other.written.seconds, 3), **question.meta}
        meta["clips"] = [ready.meta, other.meta]
        audio.append(f"clips/{other.written.file}")
        source = "+".join(sorted({source, other.source}))
        licence = " and ".join(sorted({licence, other.licence}))
    if language != ENGLISH:
        meta["question_language"] = language
    turns = []
    for earlier in question.earlier:
        turns.append({"role": "user", "content": _worded(earlier, rng, language)})
        turns.append({"role": "assistant", "content": earlier.answer})
    turns.append({"role": "user", "content": text})
    turns.append({"role": "assistant", "content": question.answer})
    row = {
        "id": f"{question.task}-{ready.id}-{number + 1}" if number else f"{question.task}-{ready.id}",
        "audio": audio,
        "turns": turns,
        "task": question.task,
        "answer_type": question.answer_type,
        "source": source,
        "split": split,
        "licence": licence,
        "provenance": provenance,
        "meta": meta,
    }
    if question.choices is not None:
        row["choices"] = question.choices
    return row
