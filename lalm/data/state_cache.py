"""The state cache that belongs to a recipe: its name covers everything that encoder states depend on."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lalm.data.cache import StateCache
from lalm.encoders import encoder_fingerprint
from lalm.recipe.schema import Recipe
from lalm.resources import cache_folder

if TYPE_CHECKING:
    from lalm.processing.processor import LalmProcessor


def caches_states(recipe: Recipe) -> bool:
    """Whether encoder states can be kept: the recipe wants it, and nothing in front of them trains."""
    is_frozen = all(stage.learning_rates.encoder is None for stage in recipe.stages)
    is_frozen = is_frozen and "encoder" not in recipe.init_parts
    return recipe.data.cache_states and is_frozen and all(section.layers != "weighted" for section in recipe.encoders)


def open_state_cache(recipe: Recipe, model: Any, processor: LalmProcessor) -> StateCache | None:
    """The cache of this recipe's encoders; None where states cannot be kept."""
    if not caches_states(recipe):
        return None
    fingerprint: dict[str, Any] = {
        "encoders": [
            {"options": section.model_dump(mode="json"), "weights": encoder_fingerprint(section)}
            for section in recipe.encoders
        ],
        "front_ends": [front_end.model_dump(mode="json") for front_end in processor.front_ends],
        "torch": version("torch"),
        "transformers": version("transformers"),
        "device": model.device.type,
    }
    if len(recipe.encoders) > 1:
        fingerprint["join"] = recipe.join.model_dump(mode="json")
    if any(section.base == "random" for section in recipe.encoders):
        fingerprint["seed"] = recipe.seed
    return StateCache(
        cache_folder() / "states",
        fingerprint=fingerprint,
        width=model.audio_tower.width,
        dtype="int32" if model.audio_tower.num_units else recipe.data.cache_dtype,
    )
