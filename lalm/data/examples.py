"""From records to examples: the records that a recipe selects, then their token ids and labels.

Nothing stops at a broken record or clip: it is dropped with its reason, and only too many of them are an error. Neither
records nor examples are held in memory: both are sequences that read from the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lalm.data.clips import ClipInfo, ClipStore, resolve_clip
from lalm.data.example_store import ExampleStore, store_examples
from lalm.data.packing import IGNORED
from lalm.data.record_file import RecordFile, open_record_file
from lalm.data.records import Record
from lalm.data.sequences import Joined, Picked, ReadSequence
from lalm.errors import DataError
from lalm.recipe.schema import Recipe, SourceSection, StageSection

if TYPE_CHECKING:
    from lalm.data.cache import StateCache
    from lalm.processing.processor import LalmProcessor

_NAMED_IN_ERROR = 5
MAX_LISTED = 10_000
"""Dropped records that are listed with their reason; more are counted."""


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


class SourcedRecords(ReadSequence[SourcedRecord]):
    """Records `rows` of a file, as one source has them; read when they are asked for."""

    def __init__(self, file: RecordFile, rows: np.ndarray, source: str):
        self.file, self.rows, self.source = file, rows, source

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> SourcedRecord:
        """
        Raises:
            DataError: if a clip lies outside of the folder of the file.
        """
        record = self.file[int(self.rows[index])]
        try:
            clips = tuple(str(resolve_clip(clip, self.file.path.parent)) for clip in record.audio)
        except DataError as error:
            raise DataError(f"{self.file.path} (id '{record.id}'): {error}") from None
        return SourcedRecord(record, self.source, clips)

    def of(self, stage: StageSection, splits: Sequence[str] | None) -> SourcedRecords:
        """Those that a stage's tasks, lengths of answer, and `splits` leave."""
        kept = np.isin(self.rows, self.file.select(splits or self.file.splits, stage.tasks))
        words = self.file.rows["words"][self.rows]
        kept &= words >= (stage.min_answer_words or 0)
        if stage.max_answer_words is not None:
            kept &= words <= stage.max_answer_words
        return SourcedRecords(self.file, self.rows[kept], self.source)


@dataclass
class Dropped:
    """What was left out, and why: id of the record (or its file and line) -> reason. Of very many, the first."""

    reasons: dict[str, str] = field(default_factory=dict)
    num_unlisted: int = 0

    def add(self, name: str, reason: str) -> None:
        """Counts it, and lists it while the list is short."""
        if name in self.reasons or len(self.reasons) < MAX_LISTED:
            self.reasons[name] = reason
        else:
            self.num_unlisted += 1

    def extend(self, other: Dropped) -> None:
        """Adds what another one lists and counts."""
        for name, reason in other.reasons.items():
            self.add(name, reason)
        self.num_unlisted += other.num_unlisted

    def __len__(self) -> int:
        return len(self.reasons) + self.num_unlisted

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


def load_records(recipe: Recipe, *, sources: Sequence[str] | None = None) -> tuple[Sequence[SourcedRecord], Dropped]:
    """Training records of the named sources (all by default); raises as `load_source`."""
    dropped = Dropped()
    return Joined([_load(recipe, name, dropped) for name in sources or recipe.data.sources]), dropped


def load_source(
    folder: Path, name: str, section: SourceSection, *, seed: int, max_bad_share: float, dropped: Dropped
) -> SourcedRecords:
    """Records of one source, whose file is relative to `folder`; those that break the contract go to `dropped`.

    Raises:
        DataError: if the file cannot be read, or more than `max_bad_share` of it breaks the contract.
    """
    path = folder / section.records
    if section.streamed:
        raise DataError(
            f"{path}: source '{name}' is streamed (streamed: true) and cannot be read as a whole here. Name sources "
            "that are not: evaluation.sources for an evaluation."
        )
    file = open_record_file(path)
    bad, total = file.problems, len(file) + len(file.problems)
    if len(bad) > max_bad_share * total:
        shown = "\n  ".join(bad[:_NAMED_IN_ERROR])
        raise DataError(
            f"{path}: {len(bad)} of {total} records cannot be used, more than "
            f"data.max_bad_share = {max_bad_share:g} allows:\n  {shown}"
        )
    for problem in bad:
        where, _, why = problem.partition(": ")
        dropped.add(where, why)
    kept = file.select(section.splits, section.tasks)
    if section.max_records is not None and len(kept) > section.max_records:
        chosen = np.random.default_rng(seed).permutation(len(kept))[: section.max_records]
        kept = kept[np.sort(chosen)]
    return SourcedRecords(file, kept, name)


def load_stage_records(recipe: Recipe, stage_index: int) -> tuple[Sequence[SourcedRecord], Dropped]:
    """Records that one stage trains on; raises as `load_source`."""
    stage, dropped = recipe.stages[stage_index], Dropped()
    names = stage.sources or recipe.data.sources
    return Joined([_load(recipe, name, dropped).of(stage, stage.splits) for name in names]), dropped


def load_held_out(recipe: Recipe, stage_index: int) -> Sequence[SourcedRecord]:
    """Records whose loss is measured during a stage: its sources and tasks, the splits of `evaluate_splits`."""
    stage, parts = recipe.stages[stage_index], []
    for name in stage.sources or recipe.data.sources:
        section = recipe.data.sources[name].model_copy(update={"splits": stage.evaluate_splits, "max_records": None})
        parts.append(_load(recipe, name, Dropped(), section).of(stage, None))
    ids = np.concatenate([part.file.rows["id"][part.rows] for part in parts])
    once = np.sort(np.unique(ids, return_index=True)[1])
    chosen = np.random.default_rng(recipe.seed).permutation(len(once))[: stage.evaluate_records]
    return Picked(Joined(parts), once[np.sort(chosen)])


def _load(recipe: Recipe, name: str, dropped: Dropped, section: SourceSection | None = None) -> SourcedRecords:
    data = recipe.data
    section = section or data.sources[name]
    return load_source(data.folder, name, section, seed=recipe.seed, max_bad_share=data.max_bad_share, dropped=dropped)


def counted_by_cache(processor: LalmProcessor, cache: StateCache | None) -> Callable[[ClipInfo], int] | None:
    """What counts the positions of clips whose steps follow from what is heard: the cache, which holds their steps.

    None where the processor's rule does: for any other encoder, and without a cache (a dry run), for which it gives the
    most that there can be.
    """
    rule = processor.step_rule
    if rule is None or cache is None:
        return None

    def count(info: ClipInfo) -> int:
        steps = cache.num_steps(info.audio_hash)
        if steps is None:
            raise DataError("its clip was not encoded, so the units that it consists of are not known")
        return rule.count(steps)

    return count


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
    refuse: Callable[[Example], str | None] = lambda example: None,
    count_positions: Callable[[ClipInfo], int] | None = None,
) -> tuple[ExampleStore, Dropped]:
    """Token ids and labels of every usable record; the others are dropped with their reason.

    `refuse` says why the stage has no use for an example; None if it has. `count_positions`: see `encode_record`.
    """
    dropped = Dropped()

    def usable() -> Iterator[tuple[Example, int]]:
        for item in records:
            try:
                example = encode_record(
                    item,
                    processor,
                    clips,
                    max_text_tokens=max_text_tokens,
                    train_on_inputs=train_on_inputs,
                    count_positions=count_positions,
                )
                if reason := refuse(example):
                    raise DataError(reason)
            except DataError as error:
                dropped.add(item.record.id, str(error))
                continue
            infos = [info for clip in item.clips if (info := clips.info(clip)) is not None]
            yield example, sum(info.num_samples for info in infos)

    return store_examples(usable()), dropped


def encode_record(
    item: SourcedRecord,
    processor: LalmProcessor,
    clips: ClipStore,
    *,
    max_text_tokens: int | None = None,
    train_on_inputs: bool = False,
    count_positions: Callable[[ClipInfo], int] | None = None,
) -> Example:
    """Token ids and labels of one record.

    `count_positions` gives the audio positions of a clip; by default the processor's rule from samples does.

    Raises:
        DataError: if it cannot be used: a clip is broken, nothing is answered, or no room is left for an answer.
    """
    infos = [info for clip in item.clips if (info := clips.info(clip)) is not None]
    if len(infos) < len(item.clips):
        raise DataError(clips.quarantine[next(clip for clip in item.clips if clip in clips.quarantine)])
    if item.record.answer is None:
        raise DataError("does not end with an assistant turn, so there is nothing to learn")
    count = count_positions or (lambda info: processor.num_positions(info.num_samples))
    encoded = processor.encode_turns(
        item.record.turns,
        [count(info) for info in infos],
        max_text_tokens=max_text_tokens,
        train_on_inputs=train_on_inputs,
    )
    labels = np.asarray(encoded.labels, np.int32)
    if item.num_worked and not train_on_inputs:
        labels = _without_first_answers(labels, item.num_worked)
    if (labels == IGNORED).all():
        raise DataError(f"leaves no room for an answer in max_text_tokens = {max_text_tokens}")
    return Example(
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


def _without_first_answers(labels: np.ndarray, count: int) -> np.ndarray:
    """Labels [L] with the first `count` runs of labelled positions taken out."""
    labelled = labels != IGNORED
    starts = np.flatnonzero(labelled & ~np.concatenate([[False], labelled[:-1]]))
    kept = labels.copy()
    if len(starts) > count:
        kept[: starts[count]] = IGNORED
    return kept
