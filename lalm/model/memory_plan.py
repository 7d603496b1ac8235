"""How many bytes each stage of a recipe needs in one process, and how many operations it takes: no weights are read.

    weights      what each part is held in: float32 where it trains, the recipe's precision or quantised where not
    gradients    float32, of what trains
    optimizer    Adam's two float32 moments
    activations  the most that one micro-batch holds at once beside those, see `lalm.model.memory`

Python, torch and a GPU's own context (about 0.5 to 1 GiB) come on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import nn

from lalm.model.build import position_rule
from lalm.model.decoder import choose_attention, choose_dtype, decoder_layers
from lalm.model.grouped_attention import is_fastest_here, why_not_grouped
from lalm.model.lean_norm import lean_norms
from lalm.model.memory import PassCost, count_pass
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.model.plan import build_without_weights
from lalm.model.planned import BatchShape, StageMemory
from lalm.recipe.schema import Recipe, StageSection

FLOAT32_BYTES = 4
ADAM_BYTES = 8
QUANTISED_BYTES = {"nf4": 0.52, "int8": 1.0}
"""Bytes a weight of bitsandbytes, scales included (nf4 with double quantisation: 0.5 + 1/64 + little)."""
ROW_POSITIONS = 1024
TEXT_POSITIONS = 64
ANSWER_POSITIONS = 24
"""Where no data is there to look at: records have so many positions of text, and of those so many are supervised."""


def plan_memory(
    recipe: Recipe,
    *,
    live_encoder: bool,
    shapes: Mapping[str, BatchShape] | None = None,
    only: str | None = None,
    counted: dict[object, PassCost] | None = None,
    model: LalmForConditionalGeneration | None = None,
) -> tuple[StageMemory, ...]:
    """Every stage of a recipe, or the one that is named.

    Args:
        live_encoder: encoders run in every micro-batch; else their states come from the cache.
        shapes: the largest micro-batch of a stage, by its name; `assumed_shape` for the others.
        counted: see `count_pass`.
        model: of `build_without_weights`, else it is built; it is left as the last stage holds it.

    Raises:
        ModelError: if a base cannot be found, or parts do not fit together.
    """
    model = model or build_without_weights(recipe)
    grouped = _attends_in_groups(recipe, model)
    # Grouped attention keeps what fused attention keeps, without a mask of the row.
    attention = "sdpa" if grouped else choose_attention(recipe.language_model.attention)
    model.language_model.set_attn_implementation(attention)
    if grouped:
        lean_norms(model.language_model)
    found = []
    counted = {} if counted is None else counted
    for stage in recipe.stages:
        if only not in (None, stage.name):
            continue
        shape = (shapes or {}).get(stage.name) or assumed_shape(recipe, stage, model)
        _hold(recipe, stage, model)
        answers = "language_model" in stage.objective_weights()
        cost = count_pass(
            model, shape, live_encoder=live_encoder, answers=answers, has_mask=not grouped, counted=counted
        )
        found.append(_plan_stage(recipe, stage, model, shape, cost))
    return tuple(found)


def _attends_in_groups(recipe: Recipe, model: LalmForConditionalGeneration) -> bool:
    """Whether the built model would, see `lalm.model.decoder`."""
    name = recipe.language_model.attention
    is_best = name == "auto" and is_fastest_here()
    return name == "grouped" or (is_best and why_not_grouped(model.language_model) is None)


def assumed_shape(recipe: Recipe, stage: StageSection, model: LalmForConditionalGeneration) -> BatchShape:
    """A micro-batch full of records about clips of `data.max_audio_seconds`."""
    rule = position_rule(recipe, model.audio_tower)
    audio = rule.count(round(recipe.data.max_audio_seconds * model.audio_tower.sample_rate_hz))
    records = max(1, stage.micro_batch_tokens // (audio + TEXT_POSITIONS))
    records = min(records, stage.batch_records)
    positions = records * (audio + TEXT_POSITIONS)
    rows = records if recipe.data.packing == "none" else math.ceil(positions / max(ROW_POSITIONS, audio))
    return BatchShape(
        rows=rows,
        row_positions=math.ceil(positions / rows),
        supervised=records * (TEXT_POSITIONS if stage.train_on_inputs else ANSWER_POSITIONS),
        clips=records,
        clip_seconds=recipe.data.max_audio_seconds,
    )


def _plan_stage(
    recipe: Recipe, stage: StageSection, model: LalmForConditionalGeneration, shape: BatchShape, cost: PassCost
) -> StageMemory:
    packed = _quantised(recipe, model)
    frozen = trained = 0.0
    for parameter in model.parameters():
        size = parameter.numel() * (packed.get(id(parameter)) or parameter.element_size())
        trained += size if parameter.requires_grad else 0
        frozen += 0 if parameter.requires_grad else size
    num_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return StageMemory(
        name=stage.name,
        shape=shape,
        frozen_weights=round(frozen),
        trained_weights=round(trained),
        largest_layer=round(max(_size(module, packed) for module in _gathered(model))),
        gradients=num_trained * FLOAT32_BYTES,
        optimizer=num_trained * ADAM_BYTES,
        activations=cost.peak_bytes + _largest_matrix(model, packed),
        flops=cost.flops,
    )


def _hold(recipe: Recipe, stage: StageSection, model: LalmForConditionalGeneration) -> None:
    """Freezes a model on the meta device as the stage does, in the precisions of training."""
    rates = stage.learning_rates.model_dump()
    patterns = cast("dict[str, tuple[str, ...]]", stage.only)
    held = {"language_model": choose_dtype(recipe.language_model.dtype)}
    encoder_dtypes = {
        f"audio_tower.encoders.{number}.": choose_dtype(section.dtype) for number, section in enumerate(recipe.encoders)
    }
    for part, parameters in model.parts().items():
        for name, parameter in parameters:
            trains = rates[part] is not None
            dtype = torch.float32 if trains else held.get(part, torch.float32)
            if part == "encoder" and not trains:
                dtype = next(dtype for start, dtype in encoder_dtypes.items() if name.startswith(start))
            if parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
            wanted = trains and any(fnmatchcase(name, pattern) for pattern in patterns.get(part, ("*",)))
            parameter.requires_grad_(wanted)
    model.activation_checkpointing_disable()
    if stage.gradient_checkpointing:
        model.activation_checkpointing_enable()
    model.train()


def _quantised(recipe: Recipe, model: LalmForConditionalGeneration) -> dict[int, float]:
    """Bytes a weight of what bitsandbytes quantises: matrices of the decoder's layers, no embeddings, no head."""
    each = QUANTISED_BYTES.get(recipe.language_model.quantisation)
    if each is None:
        return {}
    layers = decoder_layers(model.language_model)
    matrices = (module.weight for module in layers.modules() if isinstance(module, nn.Linear))
    adapter = {id(parameter) for _, parameter in model.parts()["lora"]}
    return {id(weight): each for weight in matrices if id(weight) not in adapter}


def _largest_matrix(model: nn.Module, packed: Mapping[int, float]) -> int:
    """A quantised matrix is unpacked for its product, one at a time."""
    sizes = (value.numel() * value.element_size() for value in model.parameters() if id(value) in packed)
    return max(sizes, default=0)


def _gathered(model: LalmForConditionalGeneration) -> list[nn.Module]:
    return [*decoder_layers(model.language_model), model.get_input_embeddings()]


def _size(module: nn.Module, packed: Mapping[int, float]) -> float:
    return sum(value.numel() * (packed.get(id(value)) or value.element_size()) for value in module.parameters())
