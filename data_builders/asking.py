"""From written clips to records: every task asks until its quota is full, guarded against guessable answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data_builders.clips import Clip, Split, seeded
from data_builders.questions import FAMILIES, IllPosed, Question, Subject, ask
from data_builders.questions.balance import AnswerBalance
from data_builders.questions.base import Context
from data_builders.selection import StoredClip, StoredScene
from data_builders.wordings import fill, load_wordings
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


def ask_all(
    split: Split,
    stored: Sequence[StoredClip | StoredScene],
    written: dict[str, Written],
    context: Context,
    quotas: dict[str, int],
    seed: int,
) -> Asked:
    """Asks every task of the written clips of one split, in an order drawn by seed, until the task's quota is full."""
    here = sorted((item for item in stored if item.split == split and item.id in written), key=lambda item: item.id)
    balance = AnswerBalance()
    refused: dict[str, Counter[str]] = {task: Counter() for task in FAMILIES}
    records: list[Record] = []
    for task, quota in quotas.items():
        order = list(here)
        seeded(seed, "order", split, task).shuffle(order)
        rounds = ROUNDS.get(task, 1) if split == "train" else 1
        asked: set[tuple[str, str]] = set()
        count = 0
        for number in range(rounds):
            for item in order:
                if count >= quota:
                    break
                rng = seeded(seed, "ask", split, task, item.id, number)
                question = _well_posed(task, item, written, context, balance, refused[task], rng)
                if question is None:
                    continue
                text = _worded(question, rng)
                if (item.id, text) not in asked:
                    asked.add((item.id, text))
                    records.append(_record(question, text, item, written[item.id], split, number))
                    count += 1
    return Asked(tuple(records), {task: dict(counts) for task, counts in refused.items() if counts})


def _well_posed(task, item, written, context, balance, refused, rng) -> Question | None:
    subject = _subject(item, written)
    reason = ""
    for _ in range(TRIES):
        question = ask(task, subject, context, rng)
        if isinstance(question, IllPosed):
            reason = question.reason
        elif balance.accepts(question):
            return question
        else:
            reason = "the answer leads"
    refused[reason] += 1
    return None


def _subject(item: StoredClip | StoredScene, written: dict[str, Written]) -> Subject:
    if isinstance(item, StoredScene):
        return Subject(item.id, scene=written[item.id].scene)
    return Subject(item.id, clip=item.clip, original=item.variant is None)


def _worded(question: Question, rng) -> str:
    task, _, name = question.wording.rpartition("/")
    task = task or question.task
    return fill(task, name, rng.randrange(len(load_wordings(task)[name])), question.slots)


def _record(question: Question, text: str, item, written: Written, split: Split, number: int) -> Record:
    clips: tuple[Clip, ...] = item.plan.clips if isinstance(item, StoredScene) else (item.clip,)
    provenance: dict[str, object] = {
        "groups": sorted({clip.group for clip in clips}),
        "clips": [clip.provenance | {"id": clip.id} for clip in clips],
        "wording": f"{question.task}/{question.wording}",
    }
    meta: dict[str, object] = {"seconds": written.seconds}
    if written.scene:
        meta["events"] = written.scene.to_json()
    elif item.variant:
        provenance["variant"] = item.variant
    if item.telephone:
        provenance["low_passed"] = True
    if clips[0].language and not written.scene:
        meta["language"] = clips[0].language
    return Record(
        id=f"{question.task}-{item.id}" + (f"-{number + 1}" if number else ""),
        audio=(f"clips/{written.file}",),
        turns=(Turn(role="user", content=text), Turn(role="assistant", content=question.answer)),
        task=question.task,
        choices=question.choices,
        answer_type=question.answer_type,
        source="+".join(sorted({clip.source for clip in clips})),
        licence=" and ".join(sorted({clip.licence for clip in clips})),
        split=split,
        provenance=provenance,
        meta=meta,
    )
