"""What a recipe would build, counted on the meta device: sizes, rates, what trains, memory. No weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch

from lalm.encoders.base import AudioEncoder
from lalm.errors import ModelError
from lalm.model.audio_tower import AudioTower
from lalm.model.build import build_empty, position_rule
from lalm.model.decoder import choose_dtype
from lalm.model.modeling import PARTS, LalmForConditionalGeneration
from lalm.recipe.schema import CrossAttentionSection, Recipe, StageSection

FLOAT32_BYTES = 4
ADAM_BYTES = 8
"""Two float32 moments for each trained parameter."""
QUANTISED_BYTES = {"nf4": 0.56, "int8": 1.02}
"""Bytes a weight, scales included."""
SUPERVISED_SHARE = 0.25
"""The share of positions that logits are made for, as estimated: prompts and audio have none."""
LOGIT_BYTES = 12
"""A logit, its float32 copy in the loss, and its gradient."""


@dataclass(frozen=True)
class EncoderPlan:
    """One encoder: its width `E` and the rate of its steps."""

    name: str
    base: str
    width: int
    sample_rate_hz: int
    steps_per_second: float


@dataclass(frozen=True)
class StagePlan:
    """What one stage trains, and about how many bytes one process needs for it."""

    name: str
    trained: dict[str, int]
    """Parameters by part, of the parts that train."""
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def num_trained(self) -> int:
        return sum(self.trained.values())

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes


@dataclass(frozen=True)
class ModelPlan:
    """All that is known of a recipe's model before any weight is read."""

    encoders: tuple[EncoderPlan, ...]
    join: str
    """How several encoders become one sequence; empty for one encoder."""
    states_per_second: float
    """Of all encoders together, over `data.max_audio_seconds`."""
    state_width: int
    positions: dict[int, int]
    """Seconds of audio -> positions `A` of the decoder."""
    decoder_width: int
    decoder_layers: int
    vocabulary_size: int
    max_positions: int | None
    """The longest text that the language model was made for."""
    dtype: str
    parameters: dict[str, int]
    """Parameters of each part."""
    stages: tuple[StagePlan, ...]
    problems: tuple[str, ...]
    """Why the recipe cannot train although its parts fit together."""

    @property
    def num_parameters(self) -> int:
        return sum(self.parameters.values())


def plan_model(recipe: Recipe) -> ModelPlan:
    """Builds the recipe's model without weights and counts.

    Raises:
        ModelError: if a base cannot be found, or parts do not fit together.
    """
    model = build_without_weights(recipe)
    tower, text_config = model.audio_tower, cast(Any, model.config.text_config)
    encoders = cast(list[AudioEncoder], list(tower.encoders))
    rule = position_rule(recipe, tower)
    longest = max(1, round(recipe.data.max_audio_seconds))
    positions = {seconds: rule.count(seconds * tower.sample_rate_hz) for seconds in sorted({1, 10, longest})}
    parameters = {part: sum(value.numel() for _, value in model.parts()[part]) for part in PARTS}
    max_positions = getattr(text_config, "max_position_embeddings", None)
    dtype = choose_dtype(recipe.language_model.dtype)
    return ModelPlan(
        encoders=tuple(
            EncoderPlan(
                section.name,
                section.base,
                encoder.width,
                encoder.front_end.sample_rate_hz,
                encoder.steps_per_second,
            )
            for section, encoder in zip(recipe.encoders, encoders, strict=True)
        ),
        join=_describe_join(recipe, tower),
        states_per_second=tower.length_rule.count(longest * tower.sample_rate_hz) / longest,
        state_width=tower.width,
        positions=positions,
        decoder_width=text_config.hidden_size,
        decoder_layers=text_config.num_hidden_layers,
        vocabulary_size=text_config.vocab_size,
        max_positions=max_positions,
        dtype=str(dtype).removeprefix("torch."),
        parameters=parameters,
        stages=tuple(_plan_stage(recipe, stage, parameters, text_config, dtype) for stage in recipe.stages),
        problems=tuple(_problems(recipe, positions[longest], max_positions, parameters)),
    )


def _describe_join(recipe: Recipe, tower: AudioTower) -> str:
    if len(recipe.encoders) == 1:
        return ""
    if recipe.join.axis == "time":
        return "one after the other"
    if tower.reference is None:
        return "step beside step"
    return f"at the steps of {recipe.encoders[tower.reference].name}"


def build_without_weights(recipe: Recipe) -> LalmForConditionalGeneration:
    """The recipe's model on the meta device. Raises `ModelError` where its sizes do not fit together."""
    try:
        return build_empty(recipe)
    except ValueError as error:
        raise ModelError(f"the parts of recipe '{recipe.name}' do not fit together: {error}") from error


def _plan_stage(
    recipe: Recipe, stage: StageSection, parameters: dict[str, int], text_config: Any, dtype: torch.dtype
) -> StagePlan:
    rates = stage.learning_rates.model_dump()
    trained = {part: parameters[part] for part in PARTS if rates[part] is not None}
    num_trained = sum(trained.values())
    return StagePlan(
        name=stage.name,
        trained=trained,
        weight_bytes=round(sum(count * _bytes_each(part, recipe, rates, dtype) for part, count in parameters.items())),
        gradient_bytes=num_trained * FLOAT32_BYTES,
        optimizer_bytes=num_trained * ADAM_BYTES,
        activation_bytes=_activation_bytes(stage, text_config, dtype)
        + _block_bytes(stage, recipe.language_model.cross_attention, text_config),
    )


def _bytes_each(part: str, recipe: Recipe, rates: dict[str, float | None], dtype: torch.dtype) -> float:
    if part != "language_model" or rates[part] is not None:
        return FLOAT32_BYTES
    return QUANTISED_BYTES.get(recipe.language_model.quantisation, dtype.itemsize)


def _activation_bytes(stage: StageSection, text_config: Any, dtype: torch.dtype) -> int:
    """What backward needs of one micro-batch in the decoder: about 8 widths and 4 feed-forward widths a layer."""
    hidden, layers = text_config.hidden_size, text_config.num_hidden_layers
    intermediate = getattr(text_config, "intermediate_size", None) or 4 * hidden
    layer = (8 * hidden + 4 * intermediate) * dtype.itemsize
    kept = layers * hidden * dtype.itemsize + layer if stage.gradient_checkpointing else layers * layer
    logits = SUPERVISED_SHARE * text_config.vocab_size * LOGIT_BYTES
    return round(stage.micro_batch_tokens * (kept + logits))


def _block_bytes(stage: StageSection, section: CrossAttentionSection | None, text_config: Any) -> int:
    """What backward needs of one micro-batch in the cross-attention blocks: two feed-forward widths, four of the text,
    two of the heads, in float32; one block with gradient checkpointing."""
    if section is None:
        return 0
    widths = (4 + 2 * section.feed_forward_factor) * text_config.hidden_size
    widths += 2 * section.num_heads * section.head_size
    count = 1 if stage.gradient_checkpointing else text_config.num_hidden_layers // section.every
    return stage.micro_batch_tokens * count * widths * FLOAT32_BYTES


def _problems(recipe: Recipe, longest: int, max_positions: int | None, parameters: dict[str, int]) -> list[str]:
    found = []
    needed = longest + recipe.data.max_text_tokens
    if max_positions is not None and needed > max_positions:
        found.append(
            f"a clip of data.max_audio_seconds = {recipe.data.max_audio_seconds:g} takes {longest} positions, with "
            f"data.max_text_tokens {needed}; the language model was made for {max_positions}. Lower one of them, "
            "or let the projector give fewer positions."
        )
    if longest == 0:
        found.append("a clip of data.max_audio_seconds gives no audio position. Use a smaller window in the projector.")
    for number, stage in enumerate(recipe.stages):
        for part, rate in stage.learning_rates.model_dump().items():
            if rate is not None and part in parameters and not parameters[part]:
                found.append(f"stages[{number}].learning_rates.{part}: this model has no parameters in that part.")
    return found
