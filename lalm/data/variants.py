"""How a stage changes its records before they are read: tags and prefixes, worked examples, continued targets.

The recipe's own wording (`data.task_tags`, `data.closed_prefix`) belongs to training and evaluation alike.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lalm.data.examples import Dropped, SourcedRecord
from lalm.data.records import AUDIO_PLACEHOLDER, Record, Turn
from lalm.data.sequences import Changed, Picked
from lalm.recipe.schema import DataSection

CLOSED_TYPES = ("choice", "yes_no", "number")
UNKNOWN = "unknown"


def worded(record: Record, data: DataSection) -> Record:
    """The record with the recipe's tag and prefix before the text of its last question."""
    parts = []
    if data.task_tags == "task":
        parts.append(f"[{record.task}]")
    elif data.task_tags == "hierarchical":
        levels = (record.meta.get("audio_type", UNKNOWN), record.meta.get("language", UNKNOWN), record.task)
        parts.append("".join(f"[{level}]" for level in levels))
    if data.closed_prefix and record.answer_type in CLOSED_TYPES:
        parts.append(data.closed_prefix)
    if not parts:
        return record
    turns = list(record.turns)
    last = max(number for number, turn in enumerate(turns) if turn.role == "user")
    # Clips that stand first stay first: questions about one clip share what comes before their text.
    text = turns[last].content
    clips = len(text) - len(text.lstrip())
    while text[clips:].startswith(AUDIO_PLACEHOLDER):
        clips += len(AUDIO_PLACEHOLDER)
    content = f"{text[:clips]}{' '.join(parts)} {text[clips:].lstrip()}"
    turns[last] = turns[last].model_copy(update={"content": content})
    return record.model_copy(update={"turns": tuple(turns)})


def with_worked_examples(records: Sequence[SourcedRecord], count: int, seed: int) -> Sequence[SourcedRecord]:
    """Each record opened by `count` other records of its task, on other clips: clip, question, answer.

    A record whose task has too few gets as many as there are. Their answers are read, not supervised. The choice
    follows from the seed and the record's id.
    """
    if count == 0:
        return records
    of_task: dict[str, array] = {}
    for number, item in enumerate(records):
        if item.record.answer is not None and len([turn for turn in item.record.turns if turn.role == "user"]) == 1:
            of_task.setdefault(item.record.task, array("i")).append(number)
    pools = {task: Picked(records, np.asarray(numbers)) for task, numbers in of_task.items()}
    return Changed(records, lambda item: _opened(item, pools.get(item.record.task, ()), count, seed))


def _opened(item: SourcedRecord, pool: Sequence[SourcedRecord], count: int, seed: int) -> SourcedRecord:
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}/{item.record.id}".encode()).digest()[:8]))
    chosen: list[SourcedRecord] = []
    for number in rng.permutation(len(pool)):
        if len(chosen) == count:
            break
        if not set(pool[number].clips) & {*item.clips, *(clip for other in chosen for clip in other.clips)}:
            chosen.append(pool[number])
    if not chosen:
        return item
    own = list(_placed(item.record))
    opening = own[:1] if own[0].role == "system" else []
    turns = [*opening, *(turn for other in chosen for turn in _placed(other.record) if turn.role != "system")]
    record = item.record.model_copy(
        update={
            "turns": (*turns, *own[len(opening) :]),
            "audio": (*(clip for other in chosen for clip in other.record.audio), *item.record.audio),
        }
    )
    clips = (*(clip for other in chosen for clip in other.clips), *item.clips)
    return replace(item, record=record, clips=clips, num_worked=len(chosen))


def _placed(record: Record) -> tuple[Turn, ...]:
    """The turns with every clip's placeholder written out."""
    if not record.audio or any(AUDIO_PLACEHOLDER in turn.content for turn in record.turns):
        return record.turns
    turns = list(record.turns)
    first = next(number for number, turn in enumerate(turns) if turn.role == "user")
    content = AUDIO_PLACEHOLDER * len(record.audio) + turns[first].content
    turns[first] = turns[first].model_copy(update={"content": content})
    return tuple(turns)


def keep_transcripts(records: Sequence[SourcedRecord], dropped: Dropped) -> Sequence[SourcedRecord]:
    """The records of one clip and its transcript; the others are listed in `dropped`."""
    kept = array("i")
    for number, item in enumerate(records):
        if item.record.answer_type == "transcript" and item.record.answer and len(item.clips) == 1:
            kept.append(number)
        else:
            dropped.add(item.record.id, "answers: continued needs one clip and an answer of type transcript")
    return Picked(records, np.asarray(kept))


def continuation_question(prompt: str, transcript: str) -> Turn:
    """What the plain language model is asked to continue."""
    return Turn(role="user", content=f"{prompt}\n\n{transcript}")


def with_continuations(
    records: Sequence[SourcedRecord], continuations: Mapping[str, str], prompt: str, dropped: Dropped
) -> Sequence[SourcedRecord]:
    """The same prompts with the clip where the transcript stood, and the language model's continuation as the answer.

    Records without a continuation are listed in `dropped`. Source: behaviour alignment of BLSP (arXiv 2309.00916).
    """
    kept = array("i")
    for number, item in enumerate(records):
        if continuations.get(item.record.id, "").strip():
            kept.append(number)
        else:
            dropped.add(item.record.id, "the language model gave no continuation of its transcript")

    def continued(item: SourcedRecord) -> SourcedRecord:
        text = continuations[item.record.id].strip()
        turns = (continuation_question(prompt, AUDIO_PLACEHOLDER), Turn(role="assistant", content=text))
        return replace(item, record=item.record.model_copy(update={"turns": turns, "answer_type": "open"}))

    return Changed(Picked(records, np.asarray(kept)), continued)
