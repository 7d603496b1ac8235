"""The dataset of a stage: one item is one micro-batch, ready for the model.

    stage = build_stage_data(recipe, 0, processor, clips, cache)
    loader = DataLoader(stage.dataset, batch_size=1, shuffle=False, collate_fn=take_single)

Under transformers' Trainer: per_device_train_batch_size=1, a sequential sampler, and the plan's number of
accumulation steps; accelerate then hands every process its own micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lalm.data.augment import augment_waveform, generator, mask_features
from lalm.data.cache import StateCache
from lalm.data.clips import ClipStore
from lalm.data.contrastive import AlignmentItems, why_not_alignable
from lalm.data.example_store import ExampleStore
from lalm.data.examples import (
    Dropped,
    Example,
    SourcedRecord,
    build_examples,
    clip_paths,
    counted_by_cache,
    load_held_out,
    load_stage_records,
)
from lalm.data.mixture import StagePlan, plan_stage
from lalm.data.packing import Layout, pack, sharing
from lalm.data.sequences import Changed
from lalm.data.shards import streamed_sources
from lalm.data.spans import clip_seconds
from lalm.data.variants import keep_transcripts, with_continuations, with_worked_examples, worded
from lalm.errors import AudioError, DataError
from lalm.recipe.schema import AugmentSection, Recipe, StageSection

if TYPE_CHECKING:
    from lalm.data.streaming import StreamedRows, StreamPlan
    from lalm.processing.processor import LalmProcessor


UNHEARD_SECONDS = 1.0
"""Of silence that a micro-batch without clips sends through tower and projector."""


@dataclass
class StageData:
    """All that one stage trains on, and what it had to leave out."""

    dataset: MicroBatchDataset
    plan: StagePlan | StreamPlan
    examples: ExampleStore | StreamedRows
    dropped: Dropped
    held_out: MicroBatchDataset | None = None
    """Batches whose loss is measured during the stage."""
    classes: Sequence[tuple[str, str]] = ()
    """(task, answer) of each class of the classification head."""

    @property
    def num_truncated(self) -> int:
        """Examples whose answer was shortened."""
        return self.examples.num_truncated


@dataclass(frozen=True)
class MicroBatch:
    """`inputs`: keyword arguments of the model's forward; `examples`: what they were made of; `owners` [R, L]: the
    example of each position (None where nothing passes through the decoder); `audio_seconds` of its clips, where they
    were decoded for it."""

    inputs: dict[str, Any]
    examples: list[Example]
    owners: np.ndarray | None
    audio_seconds: float | None = None


class MicroBatchDataset(Dataset):
    """Item i is the i-th micro-batch of a plan: keyword arguments of the model's forward.

    With a cache that holds all clips of the micro-batch, audio comes as `audio_states` [clips, T, E] and
    `audio_state_lengths`; else as `input_features`, `feature_lengths`, `chunk_counts`.

    Args:
        alignment: makes the items of the objectives beside the decoder.
        answers: whether the language_model objective is computed.
        weigh: the weight of an example's labels; all count 1 without it.
        augment, seed: random changes of clips that are not read from the cache.
        always_audio: a micro-batch of text alone brings silence that is heard by no text.
        in_one_row: see `pack`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        plan: StagePlan | StreamPlan,
        *,
        layout: Layout,
        pad_token_id: int,
        processor: LalmProcessor,
        clips: ClipStore,
        cache: StateCache | None = None,
        alignment: AlignmentItems | None = None,
        answers: bool = True,
        weigh: LabelWeights | None = None,
        augment: AugmentSection | None = None,
        seed: int = 0,
        always_audio: bool = False,
        in_one_row: bool = False,
    ):
        self.examples, self.plan = examples, plan
        self.layout, self.in_one_row, self.pad_token_id = layout, in_one_row, pad_token_id
        self.processor, self.clips, self.cache = processor, clips, cache
        self.alignment, self.answers, self.weigh = alignment, answers, weigh
        self.augment, self.seed, self.always_audio = augment, seed, always_audio
        self._paths = clip_paths(examples) if augment is not None else []

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return self.micro_batch(item).inputs

    def micro_batch(self, item: int) -> MicroBatch:
        """Item `item`, with what it was made of.

        Raises:
            DataError: if none of its clips can be read any more.
        """
        assert isinstance(self.plan, StagePlan)
        chosen = [self.examples[index] for index in self.plan[item]]
        while True:
            try:
                return self._make(chosen, item)
            except AudioError as error:
                # A clip broke since the stage was built: the micro-batch goes on without its records.
                chosen = [example for example in chosen if not self.clips.quarantine.keys() & set(example.clips)]
                if not chosen:
                    raise DataError(f"micro-batch {item}: no clip of it can be read any more. {error}") from None

    def _make(self, chosen: list[Example], item: int) -> MicroBatch:
        inputs: dict[str, Any] = {}
        owners = None
        if self.answers:
            packed = pack(chosen, self.layout, self.pad_token_id, in_one_row=self.in_one_row)
            audio = [(chosen[index].clips[clip], chosen[index].audio_hashes[clip]) for index, clip in packed.audio]
            inputs, owners = dict(packed.tensors), packed.owners
            asked = [chosen[index].questions[clip] for index, clip in packed.audio if chosen[index].questions]
            inputs |= self.processor.question_inputs(asked) if asked else {}
            if self.weigh is not None:
                weights = np.append([self.weigh(example) for example in chosen], 0.0).astype(np.float32)
                inputs["label_weights"] = torch.from_numpy(weights[owners])
        else:
            audio = list({example.audio_hashes[0]: (example.clips[0], example.audio_hashes[0]) for example in chosen}
                         .values())  # fmt: skip
        inputs |= self._audio(audio, item)
        if self.alignment is not None:
            rows: dict[str, int] = {}
            for row, (_, audio_hash) in enumerate(audio):
                rows.setdefault(audio_hash, row)
            inputs["objective_items"] = self.alignment(chosen, rows)
        return MicroBatch(inputs, chosen, owners)

    def _audio(self, audio: list[tuple[str, str]], item: int) -> dict[str, Any]:
        """Model inputs for the clips, given as (path, hash) in prompt order."""
        if not audio:
            return self._unheard() if self.always_audio else {}
        if self.cache is not None:
            found = [self.cache.get(audio_hash) for _, audio_hash in audio]
            states = [state for state in found if state is not None]
            if len(states) == len(audio):
                return {**stack_states(states)}
        if self.processor.step_rule is not None:
            self._give_up_lost(audio)
        waveforms = [self._load(path) for path, _ in audio]
        if self.augment is None:
            return dict(self.processor.audio_inputs(waveforms))
        step = item // (self.plan.gradient_accumulation_steps * self.plan.world_size)
        streams = [generator(self.seed, step, audio_hash) for _, audio_hash in audio]
        waveforms = [
            augment_waveform(wave, self.augment, rng, self._other) for wave, rng in zip(waveforms, streams, strict=True)
        ]
        inputs = dict(self.processor.audio_inputs(waveforms))
        return mask_features(inputs, self.augment, generator(self.seed, step, "|".join(name for _, name in audio)))

    def _give_up_lost(self, audio: list[tuple[str, str]]) -> None:
        """The text has places for exactly the units that were cached: what is gone is not computed again here."""
        for path, audio_hash in audio:
            if self.cache is None or self.cache.get(audio_hash) is None:
                reason = f"{path}: its units were in the state cache, and cannot be read there any more."
                self.clips.quarantine_clip(path, reason)
                raise AudioError(reason)

    def _load(self, path: str) -> np.ndarray:
        try:
            return self.clips.load(path)
        except AudioError as error:
            self.clips.quarantine_clip(path, str(error))
            raise

    def _other(self, rng: np.random.Generator) -> np.ndarray | None:
        """A clip of the stage, drawn at random; None if it cannot be read."""
        try:
            return self._load(self._paths[int(rng.integers(len(self._paths)))])
        except AudioError:
            return None

    def _unheard(self) -> dict[str, Any]:
        if self.cache is not None:
            silence = stack_states([torch.zeros(self._cached_steps(), self.cache.width)])
        else:
            num_samples = round(UNHEARD_SECONDS * self.processor.sampling_rate)
            silence = dict(self.processor.audio_inputs([np.zeros(num_samples, np.float32)]))
        return {**silence, **self.processor.question_inputs([[0]]), "audio_is_unheard": True}

    def _cached_steps(self) -> int:
        """Steps of some clip of the stage: enough for any projector."""
        hashes = (name for example in self.examples for name in example.audio_hashes)
        return next((len(state) for name in hashes if (state := self.cache.get(name)) is not None), 1)


@dataclass(frozen=True)
class LabelWeights:
    """The weight of each label of an example: its task's, and with `per_record` divided by its number of labels."""

    tasks: Mapping[str, float]
    per_record: bool

    def __call__(self, example: Example) -> float:
        weight = self.tasks.get(example.record.task, 1.0)
        return weight / example.num_supervised if self.per_record else weight


def stack_states(states: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """`audio_states` [clips, T, E], padded with zeros at the end, and `audio_state_lengths` [clips]."""
    lengths = torch.tensor([len(item) for item in states])
    stacked = states[0].new_zeros(len(states), int(lengths.max()), states[0].shape[1])
    for row, item in zip(stacked, states, strict=True):
        row[: len(item)] = item
    return {"audio_states": stacked, "audio_state_lengths": lengths}


def take_single(items: list[dict]) -> dict:
    """The collate function for a DataLoader with batch_size=1 over a `MicroBatchDataset`."""
    (item,) = items
    return item


def stage_records(
    recipe: Recipe, stage_index: int, continuations: Mapping[str, str] | None = None
) -> tuple[Sequence[SourcedRecord], Dropped]:
    """The records of a stage in its own form: continued, opened by worked examples, tagged.

    Without `continuations` a stage of continued answers keeps its transcripts as answers (a dry run, or to make them).
    """
    stage = recipe.stages[stage_index]
    records, dropped = load_stage_records(recipe, stage_index)
    return _in_form(records, recipe, stage, continuations, dropped), dropped


def build_stage_data(
    recipe: Recipe,
    stage_index: int,
    processor: LalmProcessor,
    clips: ClipStore,
    cache: StateCache | None = None,
    world_size: int = 1,
    *,
    layout: Layout | None = None,
    in_one_row: bool = False,
    continuations: Mapping[str, str] | None = None,
) -> StageData:
    """Everything that one stage of a recipe trains on. The same on every process, and on every resume.

    `layout` replaces data.packing, for a decoder whose packing would not be exact; `in_one_row` is for one whose
    attention keeps to the groups of a row, see `pack`. `continuations` are the targets of a stage of continued answers,
    by record id.

    Raises:
        DataError: if too much of the data is unusable, nothing is left, or a record does not fit a micro-batch.
    """
    stage, layout = recipe.stages[stage_index], layout or recipe.data.packing
    objectives = stage.objective_weights()
    answers = "language_model" in objectives
    layout = layout if answers else "rows"
    if streamed_sources(recipe, stage_index):
        return _streamed(recipe, stage_index, processor, clips, world_size, layout, in_one_row)
    records, dropped = stage_records(recipe, stage_index, continuations)
    paths = clip_paths(records)
    clips.scan(paths)
    clips.check_bad_share(paths)
    examples, unusable = _examples(records, recipe, stage, processor, clips, cache)
    dropped.extend(unusable)
    if not examples and len(dropped):
        raise DataError(f"stage '{stage.name}': none of its records can be used:\n{dropped.summary()}")
    plan = _plan(examples, recipe, stage_index, clips, layout, world_size)
    alignment = None
    if set(objectives) != {"language_model"}:
        alignment = AlignmentItems(examples, objectives, processor.tokenizer, seconds=clip_seconds(clips, processor))
    options: dict[str, Any] = {
        "layout": layout,
        "in_one_row": in_one_row,
        "pad_token_id": _pad_token_id(processor),
        "processor": processor,
        "clips": clips,
        "cache": cache,
        "answers": answers,
        "weigh": _label_weights(stage),
        "always_audio": bool(paths),
    }
    dataset = MicroBatchDataset(
        examples, plan, alignment=alignment, augment=stage.augment, seed=recipe.seed + stage_index, **options
    )
    classes = alignment.classes if alignment is not None else ()
    held_out = None
    if stage.evaluate_every_steps is not None:
        held_out = _held_out(recipe, stage_index, dataset, classes, options)
    return StageData(dataset, plan, examples, dropped, held_out, classes)


def _streamed(
    recipe: Recipe,
    stage_index: int,
    processor: LalmProcessor,
    clips: ClipStore,
    world_size: int,
    layout: Layout,
    in_one_row: bool,
) -> StageData:
    """A stage that reads its records while it trains. Whether there are clips shows later, so it expects some."""
    from lalm.data.streaming import open_stream

    stage = recipe.stages[stage_index]
    options: dict[str, Any] = {
        "in_one_row": in_one_row,
        "pad_token_id": _pad_token_id(processor),
        "weigh": _label_weights(stage),
        "augment": stage.augment,
        "seed": recipe.seed + stage_index,
        "always_audio": True,
    }
    batches, rows, dropped = open_stream(recipe, stage_index, processor, clips, world_size, layout=layout, **options)
    return StageData(batches, batches.plan, rows, dropped)


def _held_out(
    recipe: Recipe, stage_index: int, dataset: MicroBatchDataset, classes: Sequence[tuple[str, str]], options: dict
) -> MicroBatchDataset:
    """The batches whose loss is measured: whole in every process, each record once, never augmented."""
    stage, processor, clips = recipe.stages[stage_index], dataset.processor, dataset.clips
    found = load_held_out(recipe, stage_index)
    clips.scan(clip_paths(found))
    # Continued targets are of training records alone: held-out ones are measured on their transcripts.
    records = Changed(found, lambda item: replace(item, record=worded(item.record, recipe.data)))
    examples, _ = _examples(records, recipe, stage, processor, clips, dataset.cache)
    if not examples:
        raise DataError(
            f"stage '{stage.name}': evaluate_every_steps is given, but its sources and tasks have no usable record of "
            f"the splits {list(stage.evaluate_splits)}. Set evaluate_splits, or give records a split."
        )
    plan = plan_stage(
        [len(example) for example in examples],
        ["held out"] * len(examples),
        {},
        batch_records=len(examples),
        micro_batch_tokens=max(stage.micro_batch_tokens, *(len(example) for example in examples), 1),
        steps=1,
        seed=recipe.seed,
        padded_rows=dataset.layout == "none",
    )
    objectives = stage.objective_weights()
    alignment = None
    if dataset.alignment is not None:
        seconds = clip_seconds(clips, processor)
        alignment = AlignmentItems(examples, objectives, processor.tokenizer, classes=classes, seconds=seconds)
    return MicroBatchDataset(examples, plan, alignment=alignment, **options)


def _in_form(
    records: Sequence[SourcedRecord],
    recipe: Recipe,
    stage: StageSection,
    continuations: Mapping[str, str] | None,
    dropped: Dropped,
) -> Sequence[SourcedRecord]:
    if stage.answers == "continued":
        records = keep_transcripts(records, dropped)
        if continuations is not None:
            records = with_continuations(records, continuations, stage.continuation_prompt, dropped)
    records = Changed(records, lambda item: replace(item, record=worded(item.record, recipe.data)))
    return with_worked_examples(records, stage.in_context, recipe.seed)


def _examples(
    records: Sequence[SourcedRecord],
    recipe: Recipe,
    stage: StageSection,
    processor: LalmProcessor,
    clips: ClipStore,
    cache: StateCache | None,
) -> tuple[ExampleStore, Dropped]:
    options: dict[str, Any] = {}
    if "language_model" not in stage.objective_weights():
        options["refuse"] = why_not_alignable
    return build_examples(
        records,
        processor,
        clips,
        max_text_tokens=recipe.data.max_text_tokens,
        train_on_inputs=stage.train_on_inputs,
        count_positions=counted_by_cache(processor, cache),
        **options,
    )


def _plan(
    examples: ExampleStore, recipe: Recipe, stage_index: int, clips: ClipStore, layout: Layout, world_size: int
) -> StagePlan:
    stage, columns = recipe.stages[stage_index], examples.columns
    groups = prefixes = None
    if layout == "shared_prefix":
        groups, prefixes = sharing(examples, columns["share_key"], columns["share_limit"])
    weights = {name: section.weight for name, section in recipe.data.sources.items()} | stage.source_weights
    return plan_stage(
        columns["length"],
        examples.members(),
        weights,
        batch_records=stage.batch_records,
        micro_batch_tokens=stage.micro_batch_tokens,
        steps=stage.steps,
        epochs=stage.epochs,
        records=stage.records,
        audio_seconds=None if stage.audio_hours is None else stage.audio_hours * 3600,
        seconds=() if stage.audio_hours is None else columns["samples"] / clips.sample_rate_hz,
        temperature=stage.mixture_temperature,
        seed=recipe.seed + stage_index,
        world_size=world_size,
        groups=groups,
        prefix_lengths=prefixes,
        padded_rows=layout == "none",
        names=Changed(examples, lambda example: example.record.id),
    )


def _label_weights(stage: StageSection) -> LabelWeights | None:
    if stage.loss_per == "token" and not stage.task_weights:
        return None
    return LabelWeights(dict(stage.task_weights), stage.loss_per == "record")


def _pad_token_id(processor: LalmProcessor) -> int:
    tokenizer = processor.tokenizer
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
