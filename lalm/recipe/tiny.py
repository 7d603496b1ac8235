"""The tiny twin of a recipe: random weights of tiny sizes, the same encoders, projector, family and stages.

    load_recipe("salmonn_7b", tiny=True)

What decides how the parts meet is kept (which encoders and layers, windows, strides, the way audio enters, what trains
in which stage and towards what); widths, depths and budgets are not. A twin trains through all of its stages in
seconds on a CPU, and shows nothing of how good the system is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lalm.errors import RecipeError
from lalm.recipe.known_bases import KNOWN_ENCODERS, KNOWN_LANGUAGE_MODELS
from lalm.recipe.schema import BUDGETS, Recipe
from lalm.resources import base_sizes

STEPS = 2
"""Optimizer steps of each stage."""
MAX_AUDIO_SECONDS = 30.0
KEPT_SIZES = ("frequency_stride", "time_stride", "feat_extract_norm", "do_stable_layer_norm", "num_mel_bins")
"""Of a base's sizes, those that make another network of the same class."""
ENCODER_SIZES: dict[str, dict[str, Any]] = {
    "beats": {
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 64,
        "encoder_attention_heads": 4,
        "embed_dim": 16,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "num_buckets": 32,
        "max_distance": 80,
    },
}
"""Beside the sizes that `base: random` has by itself."""
LAYER_KEYS = {"whisper": "encoder_layers", "beats": "encoder_layers", "qwen2_audio": "encoder_layers"}
LAYER_KEYS |= {"audio_flamingo3": "encoder_layers", "granite_speech": "num_layers"}
"""What a configuration calls its depth, where that is not `num_hidden_layers`."""
ONE_DEPTH = ("clap", "encodec", "dac", "mimi")
"""Encoders whose depth is not one number."""
PROJECTOR_LIMITS = {
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 32,
    "queries": 4,
    "latents": 4,
    "prefix_length": 4,
    "adapter_size": 8,
    "feed_forward_factor": 2,
    "soft_prompt": 2,
    "layers_read": 4,
}
"""A projector's fields are at most this."""
MAX_LAYERS = PROJECTOR_LIMITS["layers_read"]
"""Of a longer list of an encoder's layers, the first."""
CROSS_ATTENTION_LIMITS = {"every": 2, "num_heads": 2, "head_size": 8, "feed_forward_factor": 2, "audio_width": 32}
TOKEN_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
"""Of the byte-level tokenizer that `base: random` has."""
FAMILY_SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 4096},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "t5": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
    },
}
"""What a family calls its sizes, where `base: random` has other names."""


def tiny_twin(recipe: Recipe) -> dict[str, Any]:
    """The plain value of the twin's recipe.

    Raises:
        RecipeError: if the family of the language model is not known without a network.
    """
    value = recipe.model_dump(mode="json")
    return {
        **value,
        "name": f"tiny_{recipe.name}",
        "description": f"The tiny twin of {recipe.name}: random weights, the same parts and stages",
        "system": None,
        "encoders": [_encoder(section) for section in value["encoders"]],
        "projector": _projector(value["projector"]),
        "language_model": _language_model(value["language_model"]),
        "data": _data(value["data"], recipe.name),
        "stages": [_stage(stage) for stage in value["stages"]],
        "generation": {**value["generation"], "max_new_tokens": 8},
        "output": {**value["output"], "folder": None, "log_to": []},
        "deepspeed": None,
    }


def _encoder(section: dict[str, Any]) -> dict[str, Any]:
    name, known = section["name"], KNOWN_ENCODERS.get(section["base"], section["random_sizes"])
    sizes = {**ENCODER_SIZES.get(name, {}), **{key: known[key] for key in KEPT_SIZES if key in known}}
    layers = section["layers"]
    if isinstance(layers, list):
        ranks = {layer: rank for rank, layer in enumerate(sorted(set(layers)))}
        layers = [ranks[layer] for layer in layers][:MAX_LAYERS]
    if name not in ONE_DEPTH:
        sizes[LAYER_KEYS.get(name, "num_hidden_layers")] = len(set(layers)) if isinstance(layers, list) else 2
    return {**section, "base": "random", "dtype": "float32", "layers": layers, "random_sizes": sizes}


def _projector(section: dict[str, Any]) -> dict[str, Any]:
    small = {key: _at_most(value, PROJECTOR_LIMITS.get(key)) for key, value in section.items()}
    for key in ("preset", "base"):
        if key in small:
            small[key] = None
    if "dropout" in small:
        small["dropout"] = 0.0
    if "num_layers" in small and section["name"] != "conv":  # there the depth is the rate
        small["num_layers"] = min(small["num_layers"], 2)
    if "branches" in small:
        small["branches"] = [_projector(branch) for branch in small["branches"]]
    return small


def _language_model(section: dict[str, Any]) -> dict[str, Any]:
    family = _family(section)
    lora, cross_attention = section["lora"], section["cross_attention"]
    if cross_attention is not None:
        cross_attention = {
            key: _at_most(value, CROSS_ATTENTION_LIMITS.get(key)) for key, value in cross_attention.items()
        }
    return {
        **section,
        "base": "random",
        "dtype": "float32",
        "attention": "auto",
        "quantisation": "none",
        "lora": lora and {**lora, "rank": 2, "dropout": 0.0},
        "cross_attention": cross_attention,
        "random_family": family,
        "random_sizes": {"max_position_embeddings": 4096, **TOKEN_IDS, **FAMILY_SIZES.get(family, {})},
    }


def _family(section: dict[str, Any]) -> str:
    base = section["base"]
    if base == "random":
        return section["random_family"]
    sizes = KNOWN_LANGUAGE_MODELS.get(base) or base_sizes(base)
    if not sizes or "model_type" not in sizes:
        raise RecipeError(
            f"--tiny: the family of language_model.base {base!r} is not known without reading it from a hub. Name a "
            f"folder on this machine, or one of: {', '.join(sorted(KNOWN_LANGUAGE_MODELS))}."
        )
    return sizes["model_type"]


def _data(section: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        **section,
        "folder": str(Path("data") / "tiny" / name),
        "build": None,
        "max_audio_seconds": min(section["max_audio_seconds"], MAX_AUDIO_SECONDS),
        "max_text_tokens": 512,
    }


def _stage(stage: dict[str, Any]) -> dict[str, Any]:
    small = {
        **stage,
        **dict.fromkeys(BUDGETS),
        "steps": STEPS,
        "batch_records": 4,
        "micro_batch_tokens": 4096,
        "warmup_steps": 0,
        "continuation_tokens": 8,
        "save_every_steps": STEPS,
        "log_every_steps": 1,
    }
    if stage["evaluate_every_steps"] is not None:
        small |= {"evaluate_every_steps": 1, "evaluate_records": 4}
    return small


def _at_most(value: Any, limit: int | None) -> Any:
    return value if value is None or limit is None else min(value, limit)
