"""`base: NAME` in a recipe: a whole audio language model instead of encoder, projector and language model.

Its parts are those that the recipe's sections name, so that every stage, template and tool works on it:

    base: Qwen/Qwen2-Audio-7B-Instruct

is an encoder `qwen2_audio`, a projector with the model's own weights, and its language model. What the recipe says of a
section besides wins (`language_model: {lora: {rank: 16}}`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lalm.errors import ModelError
from lalm.resources import base_sizes, downloaded_config, is_on_disk

Sizes = dict[str, Any]
HELPFUL = "You are a helpful assistant."
"""The system turn that Qwen's chat models were trained with."""
GRANITE_SYSTEM = (
    "Knowledge Cutoff Date: April 2024.\nToday's Date: April 9, 2025.\n"
    "You are Granite, developed by IBM. You are a helpful AI assistant"
)
"""The system turn in the example of Granite Speech's model card."""


@dataclass(frozen=True)
class WholeModel:
    """What the three sections of a recipe are for one kind of model; `projector` makes its from config.json."""

    encoder: str
    projector: Callable[[Sizes], Sizes]
    template: str
    system: str = ""


def take_base(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe's plain value with `base` turned into the three sections; as it was without one.

    Raises:
        ValueError: if the base is no model of `WHOLE_MODELS`, or cannot be read here, or its projector is of another
            make than the published ones, or the recipe also names encoders, another kind of projector or another
            language model.
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
    whole = WHOLE_MODELS[kind]
    encoders = recipe.get("encoders") or [{}]
    if not isinstance(encoders, list) or len(encoders) != 1:
        raise ValueError(f"base: {base!r} brings its one encoder: leave 'encoders' out, or give a list of its options")
    projector = {**whole.projector(sizes), "base": base}
    language_model = {"template": whole.template, "system": whole.system, "base": base}
    return {
        **{key: value for key, value in recipe.items() if key != "base"},
        "encoders": [_under("encoders[0]", {"name": whole.encoder, "base": base}, encoders[0])],
        "projector": _under("projector", projector, recipe.get("projector")),
        "language_model": _under("language_model", language_model, recipe.get("language_model")),
    }


def _under(section: str, own: dict[str, Any], given: Any) -> dict[str, Any]:
    given = given or {}
    for key in ("name", "base"):
        if given.get(key, own.get(key)) != own.get(key):
            raise ValueError(f"base: brings its own {section}: {key} is {own[key]!r}, got {given[key]!r}")
    return {**own, **given}


def _sizes(base: str) -> Sizes:
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


def _linear(sizes: Sizes) -> Sizes:
    return {"name": "linear"}


def _flamingo_mlp(sizes: Sizes) -> Sizes:
    hidden_size = _of(sizes, "text_config", "hidden_size")
    return {
        "name": "mlp",
        "stack_steps": 1,
        "num_layers": 2,
        "activation": "gelu",
        "normalise": False,
        "hidden_size": hidden_size,
    }


def _voxtral_mlp(sizes: Sizes) -> Sizes:
    """Voxtral folds its states to the width of its encoder's feed-forward layers."""
    folded, width = (_of(sizes, "audio_config", key) for key in ("intermediate_size", "hidden_size"))
    if folded % width:
        raise ValueError(f"base: its encoder's intermediate_size {folded} is no multiple of its hidden_size {width}")
    _as_published(sizes, {"projector_hidden_act": "gelu"})
    return {
        "name": "mlp",
        "stack_steps": folded // width,
        "num_layers": 2,
        "activation": "gelu",
        "normalise": False,
        "bias": False,
        "hidden_size": _of(sizes, "text_config", "hidden_size"),
    }


def _granite_qformer(sizes: Sizes) -> Sizes:
    own = sizes.get("projector_config") or {}
    published = {"model_type": "blip_2_qformer", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    _as_published(own, {**published, "use_qformer_text_input": False}, "projector_config.")
    window, rate = (_of(sizes, "", key) for key in ("window_size", "downsample_rate"))
    if window % rate:
        raise ValueError(f"base: its window_size {window} is no multiple of its downsample_rate {rate}")
    fields = {
        "num_layers": "num_hidden_layers",
        "hidden_size": "hidden_size",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
        "cross_attention_every": "cross_attention_frequency",
        "dropout": "hidden_dropout_prob",
    }
    return {
        "name": "qformer",
        "window_steps": window,
        "queries": window // rate,
        "input_norm": "none",
        "filler": "attended",
        **{ours: _of(sizes, "projector_config", theirs) for ours, theirs in fields.items()},
    }


def _of(sizes: Sizes, part: str, key: str) -> Any:
    """A size of config.json, or the default that its class has: transformers saves only what differs."""
    own = sizes if not part else sizes.get(part) or {}
    alias = ALIASES.get((part, key), key)
    return own.get(key, own.get(alias, DEFAULTS.get((sizes["model_type"], part, key))))


def _as_published(sizes: Sizes, expected: Sizes, prefix: str = "") -> None:
    for key, value in expected.items():
        if sizes.get(key, value) != value:
            raise ValueError(f"base: its {prefix}{key} is {sizes[key]!r}, accepted is {value!r}")


ALIASES = {("audio_config", "hidden_size"): "d_model", ("audio_config", "intermediate_size"): "encoder_ffn_dim"}
"""Other names that a config.json has for a size."""
DEFAULTS: dict[tuple[str, str, str], Any] = {
    ("audioflamingo3", "text_config", "hidden_size"): 4096,
    ("voxtral", "audio_config", "hidden_size"): 1280,
    ("voxtral", "audio_config", "intermediate_size"): 5120,
    ("voxtral", "text_config", "hidden_size"): 3072,
    ("granite_speech", "", "window_size"): 15,
    ("granite_speech", "", "downsample_rate"): 5,
    ("granite_speech", "projector_config", "num_hidden_layers"): 12,
    ("granite_speech", "projector_config", "hidden_size"): 768,
    ("granite_speech", "projector_config", "num_attention_heads"): 12,
    ("granite_speech", "projector_config", "intermediate_size"): 3072,
    ("granite_speech", "projector_config", "cross_attention_frequency"): 2,
    ("granite_speech", "projector_config", "hidden_dropout_prob"): 0.1,
}
"""`model_type`, part of config.json and key -> what transformers takes where the key is missing (tested against it)."""

WHOLE_MODELS: dict[str, WholeModel] = {
    # arXiv 2407.10759; transformers' qwen2_audio.
    "qwen2_audio": WholeModel("qwen2_audio", _linear, "qwen2_audio", HELPFUL),
    # arXiv 2507.08128; transformers' audioflamingo3.
    "audioflamingo3": WholeModel("audio_flamingo3", _flamingo_mlp, "chatml", HELPFUL),
    # arXiv 2505.08699; transformers' granite_speech.
    "granite_speech": WholeModel("granite_speech", _granite_qformer, "granite", GRANITE_SYSTEM),
    # arXiv 2507.13264; transformers' voxtral.
    "voxtral": WholeModel("voxtral", _voxtral_mlp, "voxtral"),
}
"""transformers' `model_type` -> what the three sections are."""

_GRANITE_PROJECTOR: Sizes = {
    "num_hidden_layers": 2,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "cross_attention_frequency": 1,
}
KNOWN: dict[str, Sizes] = {
    "Qwen/Qwen2-Audio-7B": {"model_type": "qwen2_audio"},
    "Qwen/Qwen2-Audio-7B-Instruct": {"model_type": "qwen2_audio"},
    "nvidia/audio-flamingo-3-hf": {"model_type": "audioflamingo3", "text_config": {"hidden_size": 3584}},
    "ibm-granite/granite-speech-3.3-2b": {"model_type": "granite_speech", "projector_config": _GRANITE_PROJECTOR},
    "ibm-granite/granite-speech-3.3-8b": {"model_type": "granite_speech", "projector_config": _GRANITE_PROJECTOR},
    "mistralai/Voxtral-Mini-3B-2507": {"model_type": "voxtral", "text_config": {"hidden_size": 3072}},
    "mistralai/Voxtral-Small-24B-2507": {"model_type": "voxtral", "text_config": {"hidden_size": 5120}},
}
"""Hub names whose kind is known without a network, with what the projector is made from."""
