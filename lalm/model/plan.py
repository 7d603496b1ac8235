"""What a recipe would build, counted on the meta device: sizes, rates, what trains. No weights are loaded."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, cast

from lalm.encoders.base import AudioEncoder
from lalm.errors import ModelError
from lalm.model.audio_tower import AudioTower
from lalm.model.build import build_empty, position_rule
from lalm.model.decoder import choose_dtype
from lalm.model.modeling import PARTS, LalmForConditionalGeneration
from lalm.model.planned import EncoderPlan, ModelPlan, StagePlan
from lalm.recipe.schema import Recipe, StageSection


def plan_model(recipe: Recipe, model: LalmForConditionalGeneration | None = None) -> ModelPlan:
    """Counts the recipe's model.

    Args:
        model: of `build_without_weights`; else it is built.

    Raises:
        ModelError: if a base cannot be found, or parts do not fit together.
    """
    model = model or build_without_weights(recipe)
    tower, text_config = model.audio_tower, cast(Any, model.config.text_config)
    encoders = cast(list[AudioEncoder], list(tower.encoders))
    rule = position_rule(recipe, tower)
    longest = max(1, round(recipe.data.max_audio_seconds))
    printed = {size.seconds for size in (recipe.system.sizes if recipe.system else ()) if size.seconds is not None}
    positions = {
        seconds: rule.count(round(seconds * tower.sample_rate_hz)) for seconds in sorted({1, 10, longest} | printed)
    }
    sizes = {part: {name: value.numel() for name, value in model.parts()[part]} for part in PARTS}
    parameters = {part: sum(named.values()) for part, named in sizes.items()}
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
        positions_per_second=positions[longest] / longest,
        decoder_width=text_config.hidden_size,
        decoder_layers=text_config.num_hidden_layers,
        vocabulary_size=text_config.vocab_size,
        max_positions=max_positions,
        dtype=str(dtype).removeprefix("torch."),
        parameters=parameters,
        stages=tuple(_plan_stage(stage, sizes) for stage in recipe.stages),
        problems=tuple(_problems(recipe, positions[longest], max_positions, sizes)),
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


def _plan_stage(stage: StageSection, sizes: dict[str, dict[str, int]]) -> StagePlan:
    rates = stage.learning_rates.model_dump()
    return StagePlan(stage.name, {part: _num_chosen(stage, part, sizes[part]) for part in PARTS if rates[part]})


def _num_chosen(stage: StageSection, part: str, sizes: dict[str, int]) -> int:
    """Parameters of a part that train: all, or those whose names match a pattern of `only`."""
    patterns = cast("dict[str, tuple[str, ...]]", stage.only).get(part, ("*",))
    return sum(size for name, size in sizes.items() if any(fnmatchcase(name, pattern) for pattern in patterns))


def _problems(recipe: Recipe, longest: int, max_positions: int | None, sizes: dict[str, dict[str, int]]) -> list[str]:
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
            if rate is not None and part in sizes and not sizes[part]:
                found.append(f"stages[{number}].learning_rates.{part}: this model has no parameters in that part.")
        for part, patterns in stage.only.items():
            found += [
                f"stages[{number}].only.{part}: no parameter is named like '{pattern}'. The part's first names: "
                f"{', '.join([*sizes[part]][:3])}"
                for pattern in patterns
                if not any(fnmatchcase(name, pattern) for name in sizes[part])
            ]
    return found
