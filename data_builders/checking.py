"""What the records of a whole set go through before they are sealed: filters, duplicates, evaluation sets.

Rejects stand in rejects.jsonl with their reasons, the counts of every step in funnel.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from data_builders.clips import SPLITS
from data_builders.filters.answer_cap import AnswerCap
from data_builders.filters.base import FUNNEL_NAME, Filter, Funnel, Rejects, atomic_text, run_filters
from data_builders.filters.blind import Blind
from data_builders.filters.contamination import Contamination
from data_builders.filters.duplicates import Duplicates
from data_builders.filters.grounding import Grounding
from data_builders.filters.phrases_filter import Phrases
from data_builders.recipe import DataRecipe, FilterStep
from lalm.data.records import Record, record_line

REJECTS_NAME = "rejects.jsonl"


def check_set(
    records: Callable[[], Iterable[Record]], filters: list[Filter], folder: Path
) -> tuple[Funnel, dict[str, int]]:
    """Writes what passes as `<split>.jsonl` into `folder`, with rejects and funnel; returns funnel and counts.

    funnel.json comes last: where it is, the rest is whole.
    """
    funnel = Funnel()
    counts: dict[str, int] = dict.fromkeys(SPLITS, 0)
    with ExitStack() as stack:
        rejects = stack.enter_context(Rejects(folder / REJECTS_NAME))
        kept = {split: stack.enter_context(atomic_text(folder / f"{split}.jsonl")) for split in SPLITS}
        for record in run_filters(records, filters, funnel, rejects.add):
            kept[record.split].write(record_line(record))
            counts[record.split] += 1
    if not any(step.rejected for step in funnel.steps):
        (folder / REJECTS_NAME).unlink()
    funnel.save(folder / FUNNEL_NAME)
    return funnel, counts


def filters_of(recipe: DataRecipe, folder: Path, digests: Mapping[str, str]) -> list[Filter]:
    """The chain that a recipe declares. `folder` holds the clips; `digests` are of their files, by path."""
    found: list[Filter] = [_filter(step) for step in recipe.filters]
    if recipe.dedupe:
        found.append(Duplicates(folder, of=recipe.dedupe.of, near=recipe.dedupe.near, digests=digests))
    if recipe.decontaminate:
        found.append(Contamination(recipe.decontaminate.against, folder))
    return found


def _filter(step: FilterStep) -> Filter:
    if step.name == "blind":
        return Blind(action=step.action)
    if step.name == "grounding":
        return Grounding(strict=step.strict)
    return Phrases() if step.name == "phrases" else AnswerCap()
