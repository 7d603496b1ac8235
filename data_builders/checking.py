"""What every built set goes through: the filters that need no model, before its records are written.

Refusals, leaked prompts and invented sounds are dropped (rejects.jsonl holds them, where there are any). What can be
answered without the audio is marked, and its share stands in the card.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_builders.filters.base import FUNNEL_NAME, Filter, Funnel, Rejects, run_filters
from data_builders.filters.blind import Blind
from data_builders.filters.grounding import Grounding
from data_builders.filters.phrases_filter import Phrases
from lalm.data.records import Record

if TYPE_CHECKING:
    from data_builders.asking import Asked

REJECTS_NAME = "rejects.jsonl"


def check_asked(asked: dict[str, Asked], folder: Path) -> tuple[dict[str, Asked], Funnel]:
    """The questions of each split that pass, and the funnel of all splits together, written as funnel.json."""
    funnel = Funnel()
    kept: dict[str, list[Record]] = {split: [] for split in asked}
    filters: list[Filter] = [Phrases(), Grounding(), Blind(action="mark")]
    with Rejects(folder / REJECTS_NAME) as rejects:
        for record in run_filters(
            lambda: (row for part in asked.values() for row in part.records), filters, funnel, rejects.add
        ):
            kept[record.split].append(record)
    if not any(step.rejected for step in funnel.steps):
        (folder / REJECTS_NAME).unlink()
    funnel.save(folder / FUNNEL_NAME)
    return {split: replace(part, records=tuple(kept[split])) for split, part in asked.items()}, funnel
