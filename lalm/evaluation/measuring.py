"""Measures a model that is in memory: its replies under three conditions, scored, beside yardsticks and a probe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lalm.data.records import Record
from lalm.evaluation import yardsticks as measure
from lalm.evaluation.answering import REQUESTS_HELD, Answering, Condition, token_budgets
from lalm.evaluation.console import YARDSTICKS, bar
from lalm.evaluation.held_out import sample_per_task
from lalm.evaluation.scorers import aggregate, headline, score
from lalm.evaluation.states import Cache, Clips, ClipStates
from lalm.recipe.schema import GenerationSection

if TYPE_CHECKING:
    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor

_DEAF: tuple[Condition, ...] = ("silent", "swapped")


@dataclass
class Evaluation:
    """What was measured."""

    metrics: dict[str, Any]
    """As in metrics.json."""
    predictions: list[dict[str, Any]] = field(default_factory=list)
    """As in predictions.jsonl."""


def evaluate_model(
    model: LalmForConditionalGeneration,
    processor: LalmProcessor,
    records: Sequence[Record],
    clips: Clips,
    options: GenerationSection,
    *,
    train_records: Sequence[Record] = (),
    yardsticks: Sequence[str] = YARDSTICKS,
    max_deaf_records_per_task: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    cache: Cache | None = None,
    progress: bool = True,
) -> Evaluation:
    """Evaluates a model that is in memory.

    Records whose clips cannot be used, and records without an answer, are skipped and listed in `metrics["skipped"]`.

    Args:
        records: held-out records; their audio paths are what `clips` loads.
        train_records: what the majority answer and the probe learn from.
        max_deaf_records_per_task: `silent` and `swapped` are asked of a seeded sample of at most so many records of
            each task; the metrics then say how many as `silent_n`, `swapped_n`.
        cache: encoder states kept between runs; only for encoders that are as they were when it was filled.

    Raises:
        ValueError: for an unknown yardstick.
    """
    unknown = sorted(set(yardsticks) - set(YARDSTICKS))
    if unknown:
        raise ValueError(f"unknown yardsticks {unknown}. Accepted: {', '.join(YARDSTICKS)}.")
    seconds: dict[str, float] = {}
    bank = ClipStates(model, processor, clips, cache=cache)
    with timed(seconds, "encode"), bar("read and encode clips", len(_paths(records)), shown=progress) as advance:
        records, skipped = _usable(records, bank, advance)
    answer = Answering(model, processor, bank, options, batch_size, token_budgets(records, train_records, processor))
    replies: dict[str, list[str | None]] = {}
    asked_again = {id(record) for record in sample_per_task(records, max_deaf_records_per_task, seed)}
    deaf = [index for index, record in enumerate(records) if id(record) in asked_again]
    partners = _partners(records, seed) if "swapped" in yardsticks else [None] * len(records)
    conditions: list[Condition] = ["reply", *(name for name in _DEAF if name in yardsticks)]
    for condition in conditions:
        name = "answer" if condition == "reply" else condition
        asked = range(len(records)) if condition == "reply" else deaf
        with timed(seconds, name), bar(name, len(asked), shown=progress) as advance:
            replies[condition] = answer(records, condition, partners, advance, asked)
    with timed(seconds, "probe"):
        pooled = _pooled(records, train_records, bank, seed, progress) if "probe" in yardsticks else {}
        with bar("score", len({record.task for record in records}), shown=progress) as advance:
            tasks = _tasks(records, replies, train_records, pooled, yardsticks, seed, advance)
    metrics = {"tasks": tasks, "wall_seconds": seconds, "num_records": len(records), "skipped": skipped}
    return Evaluation(metrics, _predictions(records, replies, partners))


def _usable(records: Sequence[Record], bank: ClipStates, advance) -> tuple[list[Record], list[dict[str, str]]]:
    """Records whose clips all have states, and (id, reason) of the others."""
    paths = _paths(records)
    for start in range(0, len(paths), REQUESTS_HELD):
        part = paths[start : start + REQUESTS_HELD]
        bank.clip_states(part)
        advance(len(part))
    good, skipped = [], []
    for record in records:
        reasons = [bank.broken[path] for path in record.audio if path in bank.broken]
        if record.answer is None:
            reasons.append("has no answer to compare with")
        if reasons:
            skipped.append({"id": record.id, "reason": "; ".join(reasons)})
        else:
            good.append(record)
    return good, skipped


def _paths(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(path for record in records for path in record.audio))


def _partners(records: Sequence[Record], seed: int) -> list[int | None]:
    """Swap partners within each task, as indices into `records`."""
    partners: list[int | None] = [None] * len(records)
    for indices in _by_task(records).values():
        for index, partner in zip(indices, measure.swap_partners([records[i] for i in indices], seed), strict=True):
            partners[index] = None if partner is None else indices[partner]
    return partners


def _by_task(records: Sequence[Record]) -> dict[str, list[int]]:
    tasks: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        tasks.setdefault(record.task, []).append(index)
    return tasks


def _pooled(
    records: Sequence[Record], train_records: Sequence[Record], bank: ClipStates, seed: int, shown: bool
) -> dict[str, np.ndarray]:
    """Path -> pooled states `[2E]` of every clip that a probe learns from or is asked about, but broken ones."""
    tasks = {record.task for record in records} & measure.PROBE_TASKS
    wanted = {path for record in records if record.task in tasks for path in record.audio}
    for task in tasks:
        wanted |= measure.probe_labels([record for record in train_records if record.task == task], seed).keys()
    paths, pooled = sorted(wanted), {}
    with bar("encode for the probe", len(paths), shown=shown) as advance:
        for start in range(0, len(paths), REQUESTS_HELD):
            part = paths[start : start + REQUESTS_HELD]
            for path, states in zip(part, bank.clip_states(part), strict=True):
                if states is not None:
                    pooled[path] = measure.pool_states(states.float().cpu().numpy(), bank.model.audio_tower.num_units)
            advance(len(part))
    return pooled


def _tasks(
    records: Sequence[Record],
    replies: Mapping[str, Sequence[str | None]],
    train_records: Sequence[Record],
    pooled: Mapping[str, np.ndarray],
    yardsticks: Sequence[str],
    seed: int,
    advance: Callable[[int], None],
) -> dict[str, dict[str, Any]]:
    """The `tasks` of metrics.json."""
    tasks = {}
    for task, indices in _by_task(records).items():
        test = [records[i] for i in indices]
        train = [record for record in train_records if record.task == task]
        figures = aggregate(test, [replies["reply"][i] or "" for i in indices])[task]
        entry: dict[str, Any] = {"n": figures["n"], figures["metric"]: headline(figures)}
        for name in ("silent", "swapped"):
            entry[name] = _figure_of([(records[i], replies[name][i]) for i in indices]) if name in replies else None
        entry["majority"] = measure.majority(test, train) if "majority" in yardsticks else None
        entry["chance"] = measure.chance(test, train) if "chance" in yardsticks else None
        found = measure.probe(test, train, pooled, seed=seed) if "probe" in yardsticks else None
        entry["probe"] = found and found["accuracy"]
        if found:
            entry |= {"probe_clips": found["train_clips"], "probe_classes": found["classes"]}
        entry |= {key: value for key, value in figures.items() if key not in entry}
        for name in (name for name in _DEAF if name in replies):
            num_asked = sum(replies[name][i] is not None for i in indices)
            if 0 < num_asked < len(indices):
                entry[f"{name}_n"] = num_asked
        if figures["metric"] == "accuracy":
            entry["interval"] = wilson_interval(figures["accuracy"], figures["n"])
        tasks[task] = entry
        advance(1)
    return tasks


def _figure_of(pairs: Sequence[tuple[Record, str | None]]) -> float | None:
    """The task's figure over the records that have a reply under a condition; None if there are none."""
    answered = [(record, reply) for record, reply in pairs if reply is not None]
    if not answered:
        return None
    return headline(next(iter(aggregate(*map(list, zip(*answered, strict=True))).values())))


def wilson_interval(share: float, count: int, deviations: float = 1.96) -> tuple[float, float]:
    """Bounds that hold the true share with 95 % confidence. Source: Wilson (1927), score interval."""
    spread = deviations**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = deviations * np.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _predictions(records, replies, partners) -> list[dict[str, Any]]:
    rows = []
    for index, record in enumerate(records):
        verdict = score(record, replies["reply"][index])
        row = {
            "id": record.id,
            "task": record.task,
            "audio": list(record.audio),
            "question": record.question,
            "truth": record.answer,
            "reply": replies["reply"][index],
            "correct": verdict.correct,
            "details": verdict.details,
        }
        row |= {name: replies[name][index] for name in ("silent", "swapped") if name in replies}
        if partners[index] is not None:
            row["swapped_with"] = records[partners[index]].id
        rows.append(row)
    return rows


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Notes how long a block takes, in seconds."""
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 3)
