"""Which records a run is measured on, and which its yardsticks learn from: the recipe's sources, split as they say."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lalm.data.examples import Dropped, load_source
from lalm.data.records import Record
from lalm.data.variants import worded
from lalm.errors import DataError
from lalm.recipe.schema import Recipe


def split_records(
    recipe: Recipe, max_records_per_task: int | None = None
) -> tuple[list[Record], list[Record], dict[str, str]]:
    """(held-out records, training records of the same sources, problem of each record that breaks the contract).

    Held out are the recipe's `evaluation.sources` and `evaluation.splits`, and of them the records with an answer; at
    most `max_records_per_task` of each task, a sample that the recipe's seed fixes. A record id counts once. Audio
    paths are absolute; questions are worded as in training (`data.task_tags`, `data.closed_prefix`).

    Raises:
        DataError: if no record is held out, or more than data.max_bad_share of a source breaks the contract.
    """
    section, dropped = recipe.evaluation, Dropped()
    names = section.sources or tuple(recipe.data.sources)
    test: dict[str, Record] = {}
    train: dict[str, Record] = {}
    for name in names:
        source = recipe.data.sources[name].model_copy(
            update={"splits": (*section.splits, "train"), "max_records": None}
        )
        found = load_source(
            recipe.data.folder, name, source, seed=recipe.seed, max_bad_share=recipe.data.max_bad_share, dropped=dropped
        )
        for item in found:
            if item.record.answer is not None:
                part = test if item.record.split in section.splits else train
                record = worded(item.record, recipe.data)
                part.setdefault(record.id, record.model_copy(update={"audio": item.clips}))
    if not test:
        raise DataError(
            f"no records to evaluate on: none of the sources {list(names)} in {recipe.data.folder} has records of the "
            f"splits {list(section.splits)} with an answer. Set evaluation.splits, or give records a split."
        )
    return (
        sample_per_task(list(test.values()), max_records_per_task, recipe.seed),
        list(train.values()),
        dropped.reasons,
    )


def sample_per_task(records: Sequence[Record], at_most: int | None, seed: int) -> list[Record]:
    """At most so many records of each task, in their order; a seeded sample, the same on every machine."""
    if at_most is None:
        return list(records)
    tasks: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        tasks.setdefault(record.task, []).append(index)
    kept = set()
    for task, indices in tasks.items():
        kept.update(random.Random(f"{seed}:{task}").sample(indices, min(at_most, len(indices))))
    return [record for index, record in enumerate(records) if index in kept]
