"""What `lalm check` says of a recipe: sizes, memory of each stage, the data. Computed once, then read from the cache.

Computing reads torch and transformers and builds the model without weights: seconds. What was computed stands in the
cache under a key of all that it depends on: the recipe, the files that the recipe names, lalm's own source, the
libraries, the machine. So a change of any of them computes anew, and nothing has to be told to forget. This module
imports torch only where it computes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

import lalm
from lalm.errors import AudioError
from lalm.files import write_text
from lalm.model.planned import BatchShape, ModelPlan, StageMemory
from lalm.recipe.schema import Recipe
from lalm.resources import cache_folder, downloaded_config, is_at_hand

if TYPE_CHECKING:
    from lalm.model.modeling import LalmForConditionalGeneration

MAX_PROBED_CLIPS = 2000
"""Lengths of more clips than this are estimated from so many."""
MAX_STORED = 500
"""Plans that are kept; the oldest go."""
LIBRARIES = ("torch", "transformers", "peft")
DEVICE_NODES = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""What stands there where there is a GPU: precisions and attention are chosen by it."""


@dataclass(frozen=True)
class RecipePlan:
    """All that is computed of a recipe without machines of other kinds."""

    model: ModelPlan
    memory: tuple[StageMemory, ...]
    shapes: dict[str, BatchShape] | None
    """The largest micro-batch of each stage; None where no data was looked at."""
    data: str
    """A sentence on the training data; empty where it is not there."""


_FORM = TypeAdapter(RecipePlan)


def plan_recipe(
    recipe: Recipe, *, has_data: bool, fresh: bool = False, report: Callable[[str], object] = lambda _: None
) -> RecipePlan:
    """The plan of a recipe, from the cache where nothing that it depends on changed.

    Args:
        has_data: the files of records are there.
        fresh: computes in any case.
        report: is told what is under way, where something takes time.

    Raises:
        ModelError: if a base cannot be found, or parts do not fit together.
        DataError: if the data cannot be trained on.
    """
    path = _place(recipe)
    if not fresh and (found := _stored(path)) is not None:
        return found
    plan = _computed(recipe, has_data, report)
    try:
        write_text(path, _FORM.dump_json(plan, indent=1).decode())
        for old in sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-MAX_STORED]:
            old.unlink(missing_ok=True)
    except OSError:
        pass  # Where nothing can be kept, it is computed again next time.
    return plan


def is_planned(recipe: Recipe) -> bool:
    """Whether `plan_recipe` has a plan of the recipe to read."""
    return _place(recipe).is_file()


def _place(recipe: Recipe) -> Path:
    return cache_folder() / "plans" / f"{plan_key(recipe)}.json"


def plan_key(recipe: Recipe) -> str:
    """A checksum of everything that a plan depends on. A changed clip counts only with its records."""
    bases = [recipe.language_model.base, *(encoder.base for encoder in recipe.encoders)]
    records = [recipe.data.folder / source.records for source in recipe.data.sources.values()]
    known = {
        "recipe": recipe.model_dump(mode="json"),
        "bases": {base: _base_files(base) for base in bases},
        "records": [_stamp(path) for path in records],
        "lalm": _own_source(),
        "libraries": [_version(name) for name in LIBRARIES],
        "machine": [platform.node(), platform.machine(), os.environ.get("CUDA_VISIBLE_DEVICES")],
        "devices": [node for node in DEVICE_NODES if Path(node).exists()],
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _base_files(base: str) -> list[object]:
    path = Path(base).expanduser()
    if path.is_dir():
        return [_stamp(file) for file in sorted(path.glob("*.json"))]
    if is_at_hand(base) or base == "random":
        return [_stamp(path)]
    downloaded = downloaded_config(base)
    return [_stamp(downloaded)] if downloaded else []


def _stamp(path: Path) -> list[object]:
    """A file as it stands: its name, length and time of change; without those where there is none."""
    try:
        state = path.stat()
    except OSError:
        return [str(path.absolute())]
    return [str(path.absolute()), state.st_size, state.st_mtime_ns]


@cache
def _own_source() -> str:
    folder = Path(lalm.__file__).parent
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _stored(path: Path) -> RecipePlan | None:
    """What was stored; None where nothing was, or what is there is damaged and will be written anew."""
    try:
        return _FORM.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _computed(recipe: Recipe, has_data: bool, report: Callable[[str], object]) -> RecipePlan:
    report("Reading torch and transformers ...")
    from lalm.data.state_cache import caches_states
    from lalm.model.memory_plan import plan_memory
    from lalm.model.plan import build_without_weights, plan_model

    report("Building the model without weights ...")
    model = build_without_weights(recipe)
    plan = plan_model(recipe, model)
    shapes = _batch_shapes(recipe, model) if has_data else None
    report("Counting what a step of each stage holds ...")
    memory = plan_memory(recipe, live_encoder=not caches_states(recipe), shapes=shapes, model=model)
    return RecipePlan(plan, memory, shapes, _describe_data(recipe, plan) if has_data else "")


def _batch_shapes(recipe: Recipe, model: LalmForConditionalGeneration) -> dict[str, BatchShape] | None:
    """The largest micro-batch of each stage where the data and the tokenizer are at hand and the clips not too many."""
    from lalm.data.examples import clip_paths, load_records
    from lalm.training.batch_shapes import stage_shapes

    base = recipe.language_model.base
    if base != "random" and not is_at_hand(base):
        return None
    few = len(clip_paths(load_records(recipe)[0])) <= MAX_PROBED_CLIPS
    return stage_shapes(recipe, model.audio_tower) if few else None


def _describe_data(recipe: Recipe, plan: ModelPlan) -> str:
    """Records and audio of the training data, and the size that its encoder states would have on the disk."""
    from lalm.audio.io import probe_audio
    from lalm.data.examples import clip_paths, load_records

    streamed = [name for name, section in recipe.data.sources.items() if section.streamed]
    held = [name for name in recipe.data.sources if name not in streamed]
    if not held:
        return f"Data: streamed from {', '.join(streamed)}."
    records, dropped = load_records(recipe, sources=held)
    paths = clip_paths(records)
    probed, seconds, unreadable = paths[:: max(1, -(-len(paths) // MAX_PROBED_CLIPS))], 0.0, 0
    for path in probed:
        try:
            seconds += probe_audio(path).seconds
        except AudioError:
            unreadable += 1
    seconds *= len(paths) / max(len(probed), 1)
    text = f"Data: {len(records)} records on {len(paths)} clips, {seconds / 60:.1f} minutes of audio."
    if streamed:
        text += f" Besides, {', '.join(streamed)} is streamed."
    if dropped:
        text += f" {len(dropped)} records break the contract and are left out."
    if unreadable:
        text += f" {unreadable} of {len(probed)} clips cannot be read."
    if recipe.data.cache_states and all(stage.learning_rates.encoder is None for stage in recipe.stages):
        value_bytes = {"float16": 2, "bfloat16": 2, "float32": 4}[recipe.data.cache_dtype]
        size = seconds * plan.states_per_second * plan.state_width * value_bytes
        text += f" Their encoder states take about {size / 2**20:,.0f} MiB in the cache."
    return text
