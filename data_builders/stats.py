"""Counts over records: per task how many, which answers, and what can be scored without listening.

Records are read one at a time; what is kept is a count for each different question and answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from lalm.data.records import Record


@dataclass(frozen=True)
class TaskStats:
    """One task of one split. Shares are 0 to 1."""

    task: str
    records: int
    clips: int
    answers: int
    majority_answer: str
    majority: float
    chance: float
    """The expected share of a blind pick among the choices; 0 where a record has none."""
    answer_chars: float


@dataclass
class _Counted:
    records: int = 0
    clips: set[tuple[str, ...]] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    chance: float = 0.0


def task_stats(records: Iterable[Record]) -> list[TaskStats]:
    """One row a task, in the order the tasks first occur."""
    by_task: dict[str, _Counted] = defaultdict(_Counted)
    for record in records:
        found = by_task[record.task]
        found.records += 1
        found.clips.add(record.audio)
        found.answers[record.answer or ""] += 1
        found.lengths[len(record.answer or "")] += 1
        found.chance += 1 / len(record.choices) if record.choices else 0.0
    rows = []
    for task, found in by_task.items():
        best, times = found.answers.most_common(1)[0]
        rows.append(
            TaskStats(
                task,
                found.records,
                len(found.clips),
                len(found.answers),
                best,
                times / found.records,
                found.chance / found.records,
                _middle(found.lengths),
            )
        )
    return rows


def blind_accuracy(train: Iterable[Record], test: Iterable[Record]) -> dict[str, float]:
    """Per task, how often the commonest training answer to the same words of a question is right: no audio is heard.

    A question with options takes the option that training answered most often for the task.
    """
    by_question: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    by_task: dict[str, Counter[str]] = defaultdict(Counter)
    for record in train:
        by_question[record.task, record.question][record.answer or ""] += 1
        by_task[record.task][record.answer or ""] += 1
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for record in test:
        known = by_question.get((record.task, record.question)) or by_task[record.task]
        options = record.choices or tuple(known)
        guess = max(options, key=lambda answer: (known[answer], by_task[record.task][answer], answer), default="")
        right[record.task] += guess == record.answer
        total[record.task] += 1
    return {task: right[task] / total[task] for task in total}


def _middle(lengths: Counter[int]) -> int:
    """The value that stands at half of the sorted lengths."""
    place = sum(lengths.values()) // 2
    for length in sorted(lengths):
        place -= lengths[length]
        if place < 0:
            return length
    return 0
