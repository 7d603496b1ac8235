"""What a task's figure is held against: a constant answer, chance, another clip, silence, a probe of frozen states.

A model that hears beats itself on silence and on swapped clips; a model that learnt beats the majority answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lalm.data.records import Record
from lalm.errors import MissingPackageError
from lalm.evaluation.normalise import exact_form, is_abstention
from lalm.evaluation.scorers import SCORERS, Transcript, aggregate, headline, scorer_name

PROBE_TASKS = frozenset(
    {"spoken_language", "spoken_digit", "spoken_letter", "spoken_word", "sound_name", "instrument_name"}
)
"""Tasks whose question is settled by the clip alone, so that a classifier of clips can answer it."""

MAX_PROBE_CLIPS = 2000


def majority_answer(records: Sequence[Record]) -> str | None:
    """The answer given most often (as `exact_form`), in the words of its first occurrence; None without answers."""
    answers = [record.answer for record in records if record.answer is not None]
    if not answers:
        return None
    form, _ = Counter(exact_form(answer) for answer in answers).most_common(1)[0]
    return next(answer for answer in answers if exact_form(answer) == form)


def majority(test: Sequence[Record], train: Sequence[Record]) -> float | None:
    """The figure of one task if every reply were its majority answer in `train` (in `test` where `train` has none)."""
    answer = majority_answer(train) or majority_answer(test)
    figures = aggregate(test, [answer or ""] * len(test))
    return headline(next(iter(figures.values()))) if figures else None


def chance(test: Sequence[Record], train: Sequence[Record] = ()) -> float | None:
    """Expected accuracy of a blind draw: among a record's choices, else among the task's distinct answers.

    None for transcripts, and for a task that has one answer only.
    """
    if not test or all(isinstance(SCORERS[scorer_name(record)], Transcript) for record in test):
        return None
    answers = {exact_form(record.answer) for record in [*test, *train] if record.answer is not None}
    if len(answers) < 2 and not test[0].choices:
        return None
    return float(np.mean([1 / len(record.choices) if record.choices else 1 / len(answers) for record in test]))


def swap_partners(records: Sequence[Record], seed: int) -> list[int | None]:
    """For each record of one task, the index of the record whose clips it gets instead of its own.

    Partners have as many clips, other clips, and another answer; each is used once as far as the answers allow. None
    where no record qualifies. The same seed gives the same partners.
    """
    partners: list[int | None] = [None] * len(records)
    for num_clips in {len(record.audio) for record in records}:
        members = [i for i, record in enumerate(records) if len(record.audio) == num_clips and num_clips]
        for index, partner in _derange(members, records, np.random.default_rng(seed)).items():
            partners[index] = partner
    return partners


def _derange(members: list[int], records: Sequence[Record], random: np.random.Generator) -> dict[int, int | None]:
    """Sorted by answer and turned by the largest group, a circle meets no equal answer unless one holds the half."""
    shuffled = [members[i] for i in random.permutation(len(members))]
    groups: dict[str, list[int]] = {}
    for index in shuffled:
        groups.setdefault(exact_form(records[index].answer or ""), []).append(index)
    circle = [index for group in groups.values() for index in group]
    turn = max((len(group) for group in groups.values()), default=0)
    partners: dict[int, int | None] = {}
    for place, index in enumerate(circle):
        candidates = (circle[(place + turn + step) % len(circle)] for step in range(len(circle)))
        partners[index] = next((other for other in candidates if _differ(records[index], records[other])), None)
    return partners


def _differ(record: Record, other: Record) -> bool:
    return record.audio != other.audio and exact_form(record.answer or "") != exact_form(other.answer or "")


def probe(
    test: Sequence[Record],
    train: Sequence[Record],
    pooled: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Logistic regression on mean and deviation of a frozen encoder's states, on the same held-out records.

    Args:
        test, train: the records of one task.
        pooled: path -> features `[2E]` of every clip that can be read.

    Returns:
        `{"accuracy", "train_clips", "classes"}`; None where a clip does not settle the answer (see `PROBE_TASKS`), or
        with fewer than two classes. Held-out clips of a class unseen in training count as wrong.
    """
    if not test or test[0].task not in PROBE_TASKS:
        return None
    seen = {path: label for path, label in probe_labels(train, seed).items() if path in pooled}
    held_out = [record for record in test if len(record.audio) == 1 and not is_abstention(record.answer or "")]
    if len(set(seen.values())) < 2 or not held_out:
        return None
    classifier = _classifier(seed)
    classifier.fit(np.stack([pooled[path] for path in seen]), list(seen.values()))
    right = sum(
        record.audio[0] in pooled
        and classifier.predict(pooled[record.audio[0]][None])[0] == exact_form(record.answer or "")
        for record in held_out
    )
    return {"accuracy": right / len(held_out), "train_clips": len(seen), "classes": len(set(seen.values()))}


def probe_labels(train: Sequence[Record], seed: int) -> dict[str, str]:
    """What the probe of a task learns from: `clip_labels`, of at most `MAX_PROBE_CLIPS` clips, drawn by the seed."""
    labels = clip_labels(train)
    paths = sorted(labels)
    if len(paths) > MAX_PROBE_CLIPS:
        paths = sorted(np.random.default_rng(seed).choice(paths, MAX_PROBE_CLIPS, replace=False).tolist())
    return {path: labels[path] for path in paths}


def clip_labels(records: Sequence[Record]) -> Mapping[str, str]:
    """Path -> answer form of each clip that stands alone in its records and has one answer in all of them."""
    labels: dict[str, set[str]] = {}
    for record in records:
        if len(record.audio) == 1 and record.answer is not None and not is_abstention(record.answer):
            labels.setdefault(record.audio[0], set()).add(exact_form(record.answer))
    return {path: next(iter(forms)) for path, forms in labels.items() if len(forms) == 1}


def pool_states(states: np.ndarray, num_units: int = 0) -> np.ndarray:
    """Mean and standard deviation over time, `[T, E]` -> `[2E]`; of units `[T, 1]` the share of each, `[num_units]`."""
    states = np.asarray(states, dtype=np.float32)
    if num_units:
        counts = np.bincount(states[:, 0].astype(np.int64), minlength=num_units)
        return (counts / max(len(states), 1)).astype(np.float32)
    return np.concatenate([states.mean(axis=0), states.std(axis=0)])


def _classifier(seed: int):
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise MissingPackageError("scikit-learn", "The linear probe", "train") from None
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))
