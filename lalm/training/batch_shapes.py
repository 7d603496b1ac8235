"""The largest micro-batch of each stage, taken from the data, for the estimate of memory."""

from __future__ import annotations

import numpy as np

from lalm.data.clips import ClipStore
from lalm.data.dataset import StageData, build_stage_data
from lalm.data.example_store import ExampleStore
from lalm.data.packing import pack
from lalm.model.audio_tower import AudioTower
from lalm.model.build import build_processor
from lalm.model.planned import BatchShape
from lalm.recipe.schema import Recipe
from lalm.training.batches import open_clip_store

MAX_LAID_OUT = 256
"""Of a longer stage so many micro-batches are looked at, evenly spaced."""


def stage_shapes(recipe: Recipe, tower: AudioTower) -> dict[str, BatchShape]:
    """By the stage's name; a streamed stage, whose batches nobody knows ahead, is left out. Reads records and the
    lengths of clips.

    Args:
        tower: the recipe's encoders, on the meta device.

    Raises:
        DataError: if the data cannot be trained on.
    """
    processor = build_processor(recipe, tower)
    clips = open_clip_store(recipe, processor)
    found = {}
    for index, stage in enumerate(recipe.stages):
        data = build_stage_data(recipe, index, processor, clips)
        if isinstance(data.examples, ExampleStore):
            found[stage.name] = largest_batch(data, clips)
    return found


def largest_batch(data: StageData, clips: ClipStore) -> BatchShape:
    """What the largest micro-batch of a stage holds: in positions, in labels, and in audio, each for itself."""
    rows = length = supervised = num_clips = 0
    seconds = 0.0
    for item in range(0, len(data.plan), max(1, -(-len(data.plan) // MAX_LAID_OUT))):
        packed = pack([data.examples[index] for index in data.plan[item]], data.dataset.layout, 0)
        if packed.owners.size > rows * length:
            rows, length = packed.owners.shape
        supervised = max(supervised, int(np.sum(packed.tensors["labels"].numpy() != -100)))
        heard = [data.examples[data.plan[item][index]].clips[clip] for index, clip in packed.audio]
        found = [info.num_samples / clips.sample_rate_hz for path in heard if (info := clips.info(path))]
        if sum(found) > seconds:
            seconds, num_clips = sum(found), len(found)
    return BatchShape(rows, length, max(1, supervised), num_clips, seconds / num_clips if num_clips else 0.0)
