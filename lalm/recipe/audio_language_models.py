"""`base: NAME` in a recipe: a whole audio language model instead of encoder, projector and language model.

Its parts are those that the recipe's sections name, so that every stage, template and tool works on it:

    base: Qwen/Qwen2-Audio-7B-Instruct

is an encoder `qwen2_audio`, a projector with the model's own weights, and its language model. What the recipe says of a
section besides wins (`language_model: {lora: {rank: 16}}`).
"""

from __future__ import annotations

from typing import Any

from lalm.errors import ModelError
from lalm.resources import base_sizes, downloaded_config, is_on_disk

HELPFUL = "You are a helpful assistant."
"""The system turn that Qwen's chat models were trained with."""

WHOLE_MODELS: dict[str, dict[str, dict[str, Any]]] = {
    # arXiv 2407.10759; transformers' qwen2_audio.
    "qwen2_audio": {
        "encoder": {"name": "qwen2_audio"},
        "projector": {"name": "linear"},
        "language_model": {"template": "qwen2_audio", "system": HELPFUL},
    },
    # arXiv 2507.08128; transformers' audioflamingo3.
    "audioflamingo3": {
        "encoder": {"name": "audio_flamingo3"},
        "projector": {"name": "mlp", "stack_steps": 1, "num_layers": 2, "activation": "gelu", "normalise": False},
        "language_model": {"template": "chatml", "system": HELPFUL},
    },
}
"""transformers' `model_type` -> what the three sections are."""

KNOWN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-Audio-7B": {"model_type": "qwen2_audio"},
    "Qwen/Qwen2-Audio-7B-Instruct": {"model_type": "qwen2_audio"},
    "nvidia/audio-flamingo-3-hf": {"model_type": "audioflamingo3", "text_config": {"hidden_size": 3584}},
}
"""Hub names whose kind is known without a network."""


def take_base(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe's plain value with `base` turned into the three sections; as it was without one.

    Raises:
        ValueError: if the base is no model of `WHOLE_MODELS`, or cannot be read here, or the recipe also names
            encoders, another kind of projector or another language model.
    """
    base = recipe.get("base")
    if not isinstance(base, str):
        return recipe
    sizes = _sizes(base)
    if (kind := sizes.get("model_type")) not in WHOLE_MODELS:
        raise ValueError(
            f"base: {base!r} is a {kind!r} model. Accepted here: {', '.join(WHOLE_MODELS)}; of another model, name "
            "its encoder, a projector and its language model."
        )
    sections = WHOLE_MODELS[kind]
    encoders = recipe.get("encoders") or [{}]
    if not isinstance(encoders, list) or len(encoders) != 1:
        raise ValueError(f"base: {base!r} brings its one encoder: leave 'encoders' out, or give a list of its options")
    projector = {**sections["projector"], "base": base}
    if projector["name"] == "mlp":
        projector["hidden_size"] = sizes["text_config"]["hidden_size"]
    return {
        **{key: value for key, value in recipe.items() if key != "base"},
        "encoders": [_under("encoders[0]", {**sections["encoder"], "base": base}, encoders[0])],
        "projector": _under("projector", projector, recipe.get("projector")),
        "language_model": _under(
            "language_model", {**sections["language_model"], "base": base}, recipe.get("language_model")
        ),
    }


def _under(section: str, own: dict[str, Any], given: Any) -> dict[str, Any]:
    given = given or {}
    for key in ("name", "base"):
        if given.get(key, own.get(key)) != own.get(key):
            raise ValueError(f"base: brings its own {section}: {key} is {own[key]!r}, got {given[key]!r}")
    return {**own, **given}


def _sizes(base: str) -> dict[str, Any]:
    try:
        if is_on_disk(base):
            return base_sizes(base) or {}
        if (path := downloaded_config(base)) is not None:
            return base_sizes(str(path.parent)) or {}
    except ModelError as error:
        raise ValueError(f"base: {error}") from None
    if base not in KNOWN:
        raise ValueError(
            f"base: {base!r} is no folder here. Download it, or name one of those known by name: {', '.join(KNOWN)}"
        )
    return KNOWN[base]
