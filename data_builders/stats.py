"""What a file of records holds: counts, answers, lengths, and how far one gets without listening."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lalm.data.records import Record


@dataclass(frozen=True)
class TaskStats:
    """One task of a file. Shares are 0 to 1; `chance` is a blind pick of the listed choices, 0 without any."""

    task: str
    records: int
    clips: int
    answers: int
    majority_answer: str
    majority: float
    chance: float
    median_answer_letters: int


def task_stats(records: Iterable[Record]) -> list[TaskStats]:
    """One row a task, in the order of first appearance."""
    by_task: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_task[record.task].append(record)
    rows = []
    for task, members in by_task.items():
        answers = Counter(record.answer or "" for record in members)
        best, times = answers.most_common(1)[0]
        lengths = sorted(len(record.answer or "") for record in members)
        chance = sum(1 / len(record.choices) for record in members if record.choices) / len(members)
        rows.append(
            TaskStats(
                task,
                len(members),
                len({record.audio for record in members}),
                len(answers),
                best,
                times / len(members),
                chance,
                lengths[len(lengths) // 2],
            )
        )
    return rows


def blind_accuracy(train: Sequence[Record], test: Sequence[Record]) -> dict[str, float]:
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
