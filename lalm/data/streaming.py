"""A stage over sharded sets: what `lalm.data.dataset` does with a plan of all draws, done as the rows come.

Process r draws its own `batch_records / world_size` records of each optimizer step, cuts them into as many
micro-batches as every step has, and goes on with the next step. Records that do not fit open the next step. The state
is the number of rows drawn from each source and the numbers of those that were put off, whatever the size of the set.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lalm.audio.io import audio_hash
from lalm.data.clips import ClipInfo, ClipStore, resolve_clip
from lalm.data.dataset import MicroBatch, MicroBatchDataset
from lalm.data.examples import Dropped, Example, SourcedRecord, encode_record
from lalm.data.mixture import Cut
from lalm.data.packing import Layout, sharing
from lalm.data.scratch import ScratchFolder
from lalm.data.shards import PACKED, ShardSet, ShardStream, StreamMixture, open_shards, read_packed, streamed_sources
from lalm.data.variants import worded
from lalm.errors import AudioError, DataError
from lalm.recipe.schema import Recipe

if TYPE_CHECKING:
    from lalm.processing.processor import LalmProcessor

PROBED_RECORDS = 64
"""Records of the first process from which the number of micro-batches of a step is found."""
ROOM = 1.25
"""Micro-batches of a step hold so much more than a mean step needs."""
ROWS_BEFORE_SHARE = 1000
"""From so many rows on, too large a share of unusable ones stops the stage."""
KEPT_STEPS = 4
"""Steps whose state is remembered: a loader may be a little ahead of what is trained."""


@dataclass(frozen=True)
class StreamPlan:
    """What is known of a streamed stage beforehand; its micro-batches are counted as those of `StagePlan`."""

    num_steps: int
    gradient_accumulation_steps: int
    world_size: int
    batch_records: int
    draws_per_epoch: int
    micro_batch_tokens: int
    sets: str
    """Digest of sources, shares and seed."""

    def __len__(self) -> int:
        return self.num_steps * self.gradient_accumulation_steps * self.world_size

    @property
    def digest(self) -> str:
        """Changes when the batches do; kept with a checkpoint to refuse a resume on other data."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


@dataclass
class StreamedRows:
    """Stands for the examples of the stage, which nobody holds: names of sources and number of rows."""

    sources: list[str]
    num_rows: int
    tasks: list[str] = field(default_factory=list)
    """Unknown beforehand: losses are told apart by source only."""
    num_truncated: int = 0
    """Of the examples made so far."""

    def __len__(self) -> int:
        return self.num_rows


class RecordReader:
    """Examples of one process, by source and number of row; what cannot be used is listed and left out.

    Args:
        shards: the sets, by source.
        audio_folder: what paths of clips outside the shards are relative to.
    """

    def __init__(
        self,
        recipe: Recipe,
        stage_index: int,
        shards: dict[str, ShardSet],
        processor: LalmProcessor,
        clips: ClipStore,
        rows: StreamedRows,
        dropped: Dropped,
        *,
        rank: int,
        world_size: int,
    ):
        self.recipe, self.stage, self.processor, self.clips = recipe, recipe.stages[stage_index], processor, clips
        self.rows, self.dropped = rows, dropped
        self.waves: dict[str, np.ndarray] = {}
        """Clips of the examples that were made and not yet forgotten."""
        self.num_read = self.num_unusable = 0
        self._infos: dict[str, ClipInfo] = {}
        self._folder: ScratchFolder | None = None
        self.streams = {
            name: ShardStream(
                shards[name],
                rank=rank,
                world_size=world_size,
                seed=f"{recipe.seed + stage_index}/{name}",
                shuffle_rows=recipe.data.sources[name].shuffle_rows,
            )
            for name in shards
        }

    def example(self, source: str, number: int) -> Example | None:
        """Row `number` of a source, if the stage has use for it.

        Raises:
            DataError: if too large a share of the rows is unusable.
        """
        self.num_read += 1
        where = f"{source}, row {number} of process {self.streams[source].rank}"
        try:
            record = self.streams[source].row(number)
            where = record.id
            if not self._wanted(source, record):
                return None
            record = worded(record, self.recipe.data)
            folder = self.recipe.data.folder
            paths = tuple(name if PACKED in name else str(resolve_clip(name, folder)) for name in record.audio)
            infos = [self._heard(path) for path in paths]
            example = encode_record(
                SourcedRecord(record, source, paths),
                self.processor,
                _Known(self.clips, dict(zip(paths, infos, strict=True))),
                max_text_tokens=self.recipe.data.max_text_tokens,
                train_on_inputs=self.stage.train_on_inputs,
            )
            if len(example) > self.stage.micro_batch_tokens:
                raise DataError(f"has {len(example)} positions, more than micro_batch_tokens allows")
        except (DataError, AudioError) as error:
            self.num_unusable += 1
            self.dropped.add(where, str(error))
            self._check_share()
            return None
        self.rows.num_truncated += example.truncated
        return example

    def forget(self, kept: Sequence[Example]) -> None:
        """Lets go of all clips but those of `kept`."""
        paths = {path for example in kept for path in example.clips}
        self.waves = {path: wave for path, wave in self.waves.items() if path in paths}
        self._infos = {path: info for path, info in self._infos.items() if path in paths}

    def _wanted(self, source: str, record: Any) -> bool:
        section, stage, words = self.recipe.data.sources[source], self.stage, len((record.answer or "").split())
        return (
            record.split in section.splits
            and (stage.splits is None or record.split in stage.splits)
            and (section.tasks is None or record.task in section.tasks)
            and (stage.tasks is None or record.task in stage.tasks)
            and (stage.min_answer_words or 0) <= words <= (stage.max_answer_words or words)
        )

    def _heard(self, path: str) -> ClipInfo:
        if path not in self._infos:
            wave = self.clips.load(self._unpacked(path))
            self.waves[path] = wave
            self._infos[path] = ClipInfo(len(wave), audio_hash(wave))
        return self._infos[path]

    def _unpacked(self, path: str) -> str:
        if PACKED not in path:
            return path
        self._folder = self._folder or ScratchFolder()
        file = self._folder.path / f"clip{Path(path).suffix}"
        file.write_bytes(read_packed(path))
        return str(file)

    def _check_share(self) -> None:
        allowed = self.recipe.data.max_bad_share
        if self.num_read >= ROWS_BEFORE_SHARE and self.num_unusable > allowed * self.num_read:
            raise StreamError(
                f"stage '{self.stage.name}': {self.num_unusable} of the first {self.num_read} rows of process "
                f"{next(iter(self.streams.values())).rank} cannot be used, more than data.max_bad_share = {allowed:g} "
                f"allows:\n{self.dropped.summary()}"
            )


class StreamError(DataError):
    """The stream itself cannot go on; no single row is to blame."""


class _Known:
    """What `encode_record` asks of a clip store, for clips that were just heard."""

    def __init__(self, clips: ClipStore, infos: dict[str, ClipInfo]):
        self.quarantine, self._infos = clips.quarantine, infos

    def info(self, path: str) -> ClipInfo | None:
        return self._infos.get(path)


class RankSteps:
    """The steps of one process, one after the other: for each the examples of its micro-batches.

    Raises:
        DataError: if the stage has no use for any row.
    """

    def __init__(self, reader: RecordReader, mixture: StreamMixture, plan: StreamPlan, layout: Layout):
        self.reader, self.mixture, self.plan, self.layout = reader, mixture, plan, layout
        self.step = 0
        """The step that `advance` makes next."""
        self._carried: list[tuple[str, int, Example]] = []
        self._states = {0: self._state()}

    def advance(self) -> list[list[Example]]:
        """The micro-batches of the next step."""
        wanted = self.plan.batch_records // self.plan.world_size
        drawn, self._carried = self._carried[:wanted], self._carried[wanted:]
        while len(drawn) < wanted:
            drawn.append(self._draw())
        put_off: list[tuple[str, int, Example]] = []
        while (bins := self._cut([example for _, _, example in drawn])) is None:
            put_off.insert(0, drawn.pop())
            if len(drawn) < self.plan.gradient_accumulation_steps:
                raise StreamError(f"step {self.step}: its records cannot be cut; lower batch_records")
        self._carried = [*put_off, *self._carried]
        self.reader.forget([example for _, _, example in (*drawn, *self._carried)])
        self.step += 1
        self._states[self.step] = self._state()
        self._states.pop(self.step - KEPT_STEPS, None)
        return [[drawn[place][2] for place in places] for places in bins]

    def state(self, step: int) -> dict[str, Any]:
        """What it takes to go on at `step`, one of the last few."""
        return self._states[step]

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.mixture.restore(state["drawn"])
        self.step = int(state["step"])
        self._carried = []
        for source, number in state["put_off"]:
            example = self.reader.example(source, number)
            if example is None:
                raise StreamError(f"row {number} of '{source}' could be used before and cannot be now")
            self._carried.append((source, number, example))
        self._states = {self.step: self._state()}

    def _state(self) -> dict[str, Any]:
        put_off = [[source, number] for source, number, _ in self._carried]
        return {"step": self.step, "drawn": self.mixture.state(), "put_off": put_off}

    def _draw(self) -> tuple[str, int, Example]:
        most = max(stream.rows_per_pass for stream in self.reader.streams.values()) * len(self.reader.streams)
        for _ in range(most + 1):
            source, number = self.mixture.next()
            example = self.reader.example(source, number)
            if example is not None:
                return source, number, example
        raise StreamError(
            f"stage '{self.reader.stage.name}': none of the {most} rows of process "
            f"{next(iter(self.reader.streams.values())).rank} is of its splits, tasks and lengths and can be used."
            f"\n{self.reader.dropped.summary()}"
        )

    def _cut(self, examples: Sequence[Example]) -> list[list[int]] | None:
        groups, prefixes = sharing(examples) if self.layout == "shared_prefix" else (None, None)
        lengths = np.array([len(example) for example in examples])
        cut = Cut(lengths, groups, prefixes, self.layout == "none", self.plan.micro_batch_tokens)
        return cut.bins(range(len(examples)), self.plan.gradient_accumulation_steps)


class StreamedBatches(MicroBatchDataset):
    """Items of a `StreamPlan`, made in order. An item of a step further on than the next is reached by `seek`, with
    the state that was saved there."""

    def __init__(self, plan: StreamPlan, make_steps: Any, **options: Any):
        super().__init__((), plan, **options)  # type: ignore[arg-type]
        self._make_steps = make_steps
        self._steps: dict[int, RankSteps] = {}
        self._bins: dict[int, tuple[int, list[list[Example]]]] = {}

    def steps(self, rank: int) -> RankSteps:
        """The steps of one process; a process asks for its own only."""
        if rank not in self._steps:
            self._steps[rank] = self._make_steps(rank)
        return self._steps[rank]

    def micro_batch(self, item: int) -> MicroBatch:
        """Item `item`.

        Raises:
            DataError: if it is not of the last step that was made or the next one, or the stream cannot go on.
        """
        number, rank = divmod(item, self.plan.world_size)
        step, place = divmod(number, self.plan.gradient_accumulation_steps)
        steps = self.steps(rank)
        if self._bins.get(rank, (-1, []))[0] != step:
            if steps.step != step:
                raise DataError(f"step {step} of a stream is asked for, and the next one is {steps.step}. Seek first.")
            self._bins[rank] = (step, steps.advance())
        self._waves = steps.reader.waves
        examples = self._bins[rank][1][place]
        batch = self._make(examples, item)
        paths = {path for example in examples for path in example.clips}
        seconds = sum(len(self._load(path)) for path in paths) / self.clips.sample_rate_hz
        return MicroBatch(batch.inputs, batch.examples, batch.owners, seconds)

    def _load(self, path: str) -> np.ndarray:
        return self._waves[path]

    def save_place(self, folder: Path, rank: int, step: int) -> None:
        """Writes the state at `step` of this process."""
        state = {"world_size": self.plan.world_size, **self.steps(rank).state(step)}
        (folder / f"stream-{rank}.json").write_text(json.dumps(state), encoding="utf-8")

    def seek(self, folder: Path, rank: int) -> None:
        """Goes on at the step where `save_place` was called.

        Raises:
            DataError: if it was another number of processes that saved it.
        """
        path = folder / f"stream-{rank}.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"world_size": "fewer"}
        if before["world_size"] != self.plan.world_size:
            raise DataError(
                f"{folder}: the stream was read by {before['world_size']} processes, and each has a share of its own; "
                f"{self.plan.world_size} cannot go on with it. Start as many again, or start over with --no-resume."
            )
        self.steps(rank).restore(before)


def open_stream(
    recipe: Recipe,
    stage_index: int,
    processor: LalmProcessor,
    clips: ClipStore,
    world_size: int,
    *,
    layout: Layout,
    **options: Any,
) -> tuple[StreamedBatches, StreamedRows, Dropped]:
    """The micro-batches of a streamed stage, the same in every process. Reads the first `PROBED_RECORDS` records.

    Raises:
        DataError: if a set cannot be read, or `batch_records` is no multiple of the number of processes.
    """
    stage = recipe.stages[stage_index]
    names = streamed_sources(recipe, stage_index)
    if stage.batch_records % world_size:
        raise DataError(
            f"stage '{stage.name}': batch_records = {stage.batch_records} cannot be shared by {world_size} processes "
            f"of a streamed stage. Set it to a multiple of {world_size}."
        )
    shards = {name: open_shards(recipe.data.folder / recipe.data.sources[name].records) for name in names}
    weights = {name: section.weight for name, section in recipe.data.sources.items()} | stage.source_weights
    rows, dropped = StreamedRows(sorted(names), sum(item.num_rows for item in shards.values())), Dropped()

    def reader_of(rank: int) -> RecordReader:
        return RecordReader(
            recipe, stage_index, shards, processor, clips, rows, dropped, rank=rank, world_size=world_size
        )

    def mixture_of(reader: RecordReader) -> StreamMixture:
        return StreamMixture(reader.streams, weights, stage.mixture_temperature)

    probe = mixture_of(reader_of(0))
    draws = {"steps": (stage.steps or 0) * stage.batch_records, "records": stage.records or 0}
    total = max(draws.values()) or (stage.epochs or 0) * probe.draws_per_epoch
    plan = StreamPlan(
        num_steps=max(1, math.ceil(total / stage.batch_records - 1e-9)),
        gradient_accumulation_steps=_micro_batches(reader_of(0), probe, recipe, stage_index, layout, world_size),
        world_size=world_size,
        batch_records=stage.batch_records,
        draws_per_epoch=probe.draws_per_epoch,
        micro_batch_tokens=stage.micro_batch_tokens,
        sets=repr(({name: item.digest for name, item in shards.items()}, probe.shares, recipe.seed + stage_index)),
    )
    rows.num_truncated = 0

    def steps_of(rank: int) -> RankSteps:
        reader = reader_of(rank)
        return RankSteps(reader, mixture_of(reader), plan, layout)

    return StreamedBatches(plan, steps_of, layout=layout, processor=processor, clips=clips, **options), rows, dropped


def _micro_batches(
    reader: RecordReader, mixture: StreamMixture, recipe: Recipe, stage_index: int, layout: Layout, world_size: int
) -> int:
    """How many micro-batches each process has in a step: enough for a mean step with some room."""
    stage = recipe.stages[stage_index]
    per_process = stage.batch_records // world_size
    plan = StreamPlan(1, 1, world_size, min(per_process, PROBED_RECORDS) * world_size, 1, 2**31, "")
    steps = RankSteps(reader, mixture, plan, "none" if layout == "none" else "rows")
    lengths = [len(example) for example in steps.advance()[0]]
    needed = max(lengths) * len(lengths) if layout == "none" else sum(lengths)
    return min(per_process, math.ceil(ROOM * needed * per_process / len(lengths) / stage.micro_batch_tokens))
