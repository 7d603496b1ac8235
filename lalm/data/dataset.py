"""The dataset of a stage: one item is one micro-batch, ready for the model.

    stage = build_stage_data(recipe, 0, processor, clips, cache)
    loader = DataLoader(stage.dataset, batch_size=1, shuffle=False, collate_fn=take_single)

Under transformers' Trainer: per_device_train_batch_size=1, a sequential sampler, and the plan's number of
accumulation steps; accelerate then hands every process its own micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from lalm.data.cache import StateCache
from lalm.data.clips import ClipStore
from lalm.data.examples import Dropped, Example, build_examples, clip_paths, load_stage_records
from lalm.data.mixture import StagePlan, plan_stage
from lalm.data.packing import Layout, pack, sharing
from lalm.errors import AudioError, DataError
from lalm.recipe.schema import Recipe

if TYPE_CHECKING:
    from lalm.processing.processor import LalmProcessor


@dataclass
class StageData:
    """All that one stage trains on, and what it had to leave out."""

    dataset: MicroBatchDataset
    plan: StagePlan
    examples: list[Example]
    dropped: Dropped

    @property
    def num_truncated(self) -> int:
        """Examples whose answer was shortened."""
        return sum(example.truncated for example in self.examples)


class MicroBatchDataset(Dataset):
    """Item i is the i-th micro-batch of a plan: keyword arguments of the model's forward.

    With a cache that holds all clips of the micro-batch, audio comes as `audio_states` [clips, T, E] and
    `audio_state_lengths`; else as `input_features`, `feature_lengths`, `chunk_counts`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        plan: StagePlan,
        *,
        layout: Layout,
        pad_token_id: int,
        processor: LalmProcessor,
        clips: ClipStore,
        cache: StateCache | None = None,
    ):
        self.examples, self.plan = examples, plan
        self.layout, self.pad_token_id = layout, pad_token_id
        self.processor, self.clips, self.cache = processor, clips, cache

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        chosen = [self.examples[index] for index in self.plan[item]]
        while True:
            packed = pack(chosen, self.layout, self.pad_token_id)
            audio = [(chosen[index].clips[clip], chosen[index].audio_hashes[clip]) for index, clip in packed.audio]
            try:
                asked = [chosen[index].questions[clip] for index, clip in packed.audio if chosen[index].questions]
                questions = self.processor.question_inputs(asked) if asked else {}
                return packed.tensors | self._audio(audio) | questions
            except AudioError as error:
                # A clip broke since the stage was built: the micro-batch goes on without its records.
                chosen = [example for example in chosen if not self.clips.quarantine.keys() & set(example.clips)]
                if not chosen:
                    raise DataError(f"micro-batch {item}: no clip of it can be read any more. {error}") from None

    def _audio(self, audio: list[tuple[str, str]]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Model inputs for the clips, given as (path, hash) in prompt order."""
        if not audio:
            return {}
        if self.cache is not None:
            found = [self.cache.get(audio_hash) for _, audio_hash in audio]
            states = [item for item in found if item is not None]
            if len(states) == len(audio):
                return {**stack_states(states)}
        waveforms = []
        for path, _ in audio:
            try:
                waveforms.append(self.clips.load(path))
            except AudioError as error:
                self.clips.quarantine_clip(path, str(error))
                raise
        return dict(self.processor.audio_inputs(waveforms))


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


def build_stage_data(
    recipe: Recipe,
    stage_index: int,
    processor: LalmProcessor,
    clips: ClipStore,
    cache: StateCache | None = None,
    world_size: int = 1,
    *,
    layout: Layout | None = None,
) -> StageData:
    """Everything that one stage of a recipe trains on. The same on every process, and on every resume.

    `layout` replaces data.packing, for a decoder whose packing would not be exact.

    Raises:
        DataError: if too much of the data is unusable, nothing is left, or a record does not fit a micro-batch.
    """
    stage, layout = recipe.stages[stage_index], layout or recipe.data.packing
    records, dropped = load_stage_records(recipe, stage_index)
    paths = clip_paths(records)
    clips.scan(paths)
    clips.check_bad_share(paths)
    examples, unusable = build_examples(
        records,
        processor,
        clips,
        max_text_tokens=recipe.data.max_text_tokens,
        train_on_inputs=stage.train_on_inputs,
    )
    dropped.reasons |= unusable.reasons
    is_contrastive = stage.objective == "contrastive"
    if is_contrastive:
        from lalm.data.contrastive import ContrastiveDataset, keep_single_clips

        examples, layout = keep_single_clips(examples, dropped), "rows"
    if not examples and len(dropped):
        raise DataError(f"stage '{stage.name}': none of its records can be used:\n{dropped.summary()}")
    groups, prefixes = sharing(examples) if layout == "shared_prefix" else (None, None)
    plan = plan_stage(
        [len(example) for example in examples],
        [example.source for example in examples],
        {name: section.weight for name, section in recipe.data.sources.items()},
        batch_records=stage.batch_records,
        micro_batch_tokens=stage.micro_batch_tokens,
        steps=stage.steps,
        epochs=stage.epochs,
        seed=recipe.seed + stage_index,
        world_size=world_size,
        groups=groups,
        prefix_lengths=prefixes,
        padded_rows=layout == "none",
        names=[example.record.id for example in examples],
    )
    tokenizer = processor.tokenizer
    dataset = (ContrastiveDataset if is_contrastive else MicroBatchDataset)(
        examples,
        plan,
        layout=layout,
        pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        processor=processor,
        clips=clips,
        cache=cache,
    )
    return StageData(dataset, plan, examples, dropped)
