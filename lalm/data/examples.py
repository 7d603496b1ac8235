"""From records to examples: the records that a recipe selects, then their token ids and labels.

Nothing stops at a broken record or clip: it is dropped with its reason, and only too many of them are an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lalm.data.clips import ClipStore, resolve_clip
from lalm.data.packing import IGNORED
from lalm.data.records import Record, scan_records
from lalm.errors import DataError
from lalm.recipe.schema import Recipe, SourceSection, StageSection

if TYPE_CHECKING:
    from lalm.processing.processor import LalmProcessor

_NAMED_IN_ERROR = 5


@dataclass(frozen=True, slots=True)
class SourcedRecord:
    """A record, the source that it was read from, and the absolute paths of its clips."""

    record: Record
    source: str
    clips: tuple[str, ...]
    num_worked: int = 0
    """Worked examples that open the conversation; their answers are not supervised."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A record as the model meets it; the audio itself stays on disk."""

    record: Record
    source: str
    input_ids: np.ndarray
    """Token ids [L], int32; the processor's audio token at audio positions."""
    labels: np.ndarray
    """Token ids [L] where there is loss, -100 elsewhere, int32; position i is predicted from i - 1."""
    audio_spans: tuple[tuple[int, int], ...]
    """Start and end position of each clip."""
    clips: tuple[str, ...]
    """Path of each clip."""
    audio_hashes: tuple[str, ...]
    truncated: bool = False
    questions: tuple[tuple[int, ...], ...] = ()
    """Ids of the text of each clip's turn, for a model that reads them."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_supervised(self) -> int:
        """Positions with loss."""
        return int((self.labels != IGNORED).sum())


@dataclass
class Dropped:
    """What was left out, and why: id of the record (or its file and line) -> reason."""

    reasons: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reasons)

    def summary(self) -> str:
        """The first few, one a line."""
        lines = [f"  {name}: {why}" for name, why in list(self.reasons.items())[:_NAMED_IN_ERROR]]
        hidden = len(self) - len(lines)
        return "\n".join(lines + ([f"  and {hidden} more"] if hidden else []))


def open_clips(
    recipe: Recipe,
    sample_rate_hz: int,
    *,
    index_file: str | os.PathLike[str] | None = None,
    quarantine_file: str | os.PathLike[str] | None = None,
) -> ClipStore:
    """The clip store with the limits of a recipe."""
    data = recipe.data
    return ClipStore(
        sample_rate_hz,
        min_seconds=data.min_audio_seconds,
        max_seconds=data.max_audio_seconds,
        max_bad_share=data.max_bad_share,
        index_file=index_file,
        quarantine_file=quarantine_file,
    )


def load_records(
    recipe: Recipe, *, sources: Sequence[str] | None = None, tasks: Sequence[str] | None = None
) -> tuple[list[SourcedRecord], Dropped]:
    """Training records of the named sources (all by default) and tasks; raises as `load_source`."""
    records, dropped = [], Dropped()
    for name in sources or recipe.data.sources:
        found = load_source(
            recipe.data.folder,
            name,
            recipe.data.sources[name],
            seed=recipe.seed,
            max_bad_share=recipe.data.max_bad_share,
            dropped=dropped,
        )
        records += [item for item in found if tasks is None or item.record.task in tasks]
    return records, dropped


def load_source(
    folder: Path, name: str, section: SourceSection, *, seed: int, max_bad_share: float, dropped: Dropped
) -> list[SourcedRecord]:
    """Records of one source, whose file is relative to `folder`; those that break the contract go to `dropped`.

    Raises:
        DataError: if the file is absent, more than `max_bad_share` of its records break the contract, or a clip lies
            outside of the file's folder.
    """
    path = folder / section.records
    good, bad = scan_records(path)
    if len(bad) > max_bad_share * (len(good) + len(bad)):
        shown = "\n  ".join(bad[:_NAMED_IN_ERROR])
        raise DataError(
            f"{path}: {len(bad)} of {len(good) + len(bad)} records cannot be used, more than "
            f"data.max_bad_share = {max_bad_share:g} allows:\n  {shown}"
        )
    for problem in bad:
        where, _, why = problem.partition(": ")
        dropped.reasons[where] = why
    kept = [
        record
        for record in good
        if record.split in section.splits and (section.tasks is None or record.task in section.tasks)
    ]
    if section.max_records is not None and len(kept) > section.max_records:
        chosen = np.random.default_rng(seed).permutation(len(kept))[: section.max_records]
        kept = [kept[place] for place in sorted(chosen)]
    sourced = []
    for record in kept:
        try:
            clips = tuple(str(resolve_clip(clip, path.parent)) for clip in record.audio)
        except DataError as error:
            raise DataError(f"{path} (id '{record.id}'): {error}") from None
        sourced.append(SourcedRecord(record, name, clips))
    return sourced


def load_stage_records(recipe: Recipe, stage_index: int) -> tuple[list[SourcedRecord], Dropped]:
    """Records that one stage trains on; raises as `load_source`."""
    stage = recipe.stages[stage_index]
    records, dropped = load_records(recipe, sources=stage.sources, tasks=stage.tasks)
    if stage.splits is not None:
        records = [item for item in records if item.record.split in stage.splits]
    return [item for item in records if _has_length(item.record, stage)], dropped


def load_held_out(recipe: Recipe, stage_index: int) -> list[SourcedRecord]:
    """Records whose loss is measured during a stage: its sources and tasks, the splits of `evaluate_splits`."""
    stage = recipe.stages[stage_index]
    found: dict[str, SourcedRecord] = {}
    for name in stage.sources or recipe.data.sources:
        section = recipe.data.sources[name].model_copy(update={"splits": stage.evaluate_splits, "max_records": None})
        for item in load_source(
            recipe.data.folder,
            name,
            section,
            seed=recipe.seed,
            max_bad_share=recipe.data.max_bad_share,
            dropped=Dropped(),
        ):
            if (stage.tasks is None or item.record.task in stage.tasks) and _has_length(item.record, stage):
                found.setdefault(item.record.id, item)
    items = list(found.values())
    chosen = np.random.default_rng(recipe.seed).permutation(len(items))[: stage.evaluate_records]
    return [items[place] for place in sorted(chosen)]


def _has_length(record: Record, stage: StageSection) -> bool:
    words = len((record.answer or "").split())
    return (stage.min_answer_words or 0) <= words <= (stage.max_answer_words or words)


def clip_paths(records: Iterable[SourcedRecord | Example]) -> list[str]:
    """Each clip once, in order."""
    return list(dict.fromkeys(clip for item in records for clip in item.clips))


def build_examples(
    records: Iterable[SourcedRecord],
    processor: LalmProcessor,
    clips: ClipStore,
    *,
    max_text_tokens: int | None = None,
    train_on_inputs: bool = False,
) -> tuple[list[Example], Dropped]:
    """Token ids and labels of every usable record; the others are dropped with their reason."""
    examples, dropped = [], Dropped()
    for item in records:
        infos = [info for clip in item.clips if (info := clips.info(clip)) is not None]
        if len(infos) < len(item.clips):
            broken = next(clip for clip in item.clips if clip in clips.quarantine)
            dropped.reasons[item.record.id] = clips.quarantine[broken]
            continue
        if item.record.answer is None:
            dropped.reasons[item.record.id] = "does not end with an assistant turn, so there is nothing to learn"
            continue
        try:
            encoded = processor.encode_turns(
                item.record.turns,
                [processor.num_positions(info.num_samples) for info in infos],
                max_text_tokens=max_text_tokens,
                train_on_inputs=train_on_inputs,
            )
        except DataError as error:
            dropped.reasons[item.record.id] = str(error)
            continue
        labels = np.asarray(encoded.labels, np.int32)
        if item.num_worked and not train_on_inputs:
            labels = _without_first_answers(labels, item.num_worked)
        if (labels == IGNORED).all():
            dropped.reasons[item.record.id] = f"leaves no room for an answer in max_text_tokens = {max_text_tokens}"
            continue
        examples.append(
            Example(
                record=item.record,
                source=item.source,
                input_ids=np.asarray(encoded.input_ids, np.int32),
                labels=labels,
                audio_spans=tuple((int(start), int(end)) for start, end in encoded.audio_spans),
                clips=item.clips,
                audio_hashes=tuple(info.audio_hash for info in infos),
                truncated=bool(encoded.truncated),
                questions=tuple(map(tuple, encoded.questions)) if processor.reads_question else (),
            )
        )
    return examples, dropped


def _without_first_answers(labels: np.ndarray, count: int) -> np.ndarray:
    """Labels [L] with the first `count` runs of labelled positions taken out."""
    labelled = labels != IGNORED
    starts = np.flatnonzero(labelled & ~np.concatenate([[False], labelled[:-1]]))
    kept = labels.copy()
    if len(starts) > count:
        kept[: starts[count]] = IGNORED
    return kept
