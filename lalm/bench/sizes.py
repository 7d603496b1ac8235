"""The shapes that are measured, and the recipe that trains them. All weights are random: nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lalm.errors import RecipeError
from lalm.recipe.schema import Recipe

Audio = Literal["salmonn", "granite_speech", "qwen2_audio"]
"""Whose audio path a model has: encoders, and audio positions a second. Everything else is the same."""


@dataclass(frozen=True)
class Sizes:
    """Shapes of the three parts, under the names of their transformers configurations (BEATs: of its checkpoints)."""

    name: str
    language_model: dict[str, int]
    whisper: dict[str, int]
    beats: dict[str, int]
    qformer: dict[str, int]
    lora_rank: int = 8
    dtype: str = "auto"
    """How frozen weights are held; the peers' are float32, and autocast where that is faster."""
    micro_batch_tokens: int = 2048
    """Positions that a pass may hold."""
    compiles: bool = False
    """The decoder's layers are compiled, where they can be; the first step does not count it."""


TINY = Sizes(
    name="tiny",
    language_model={
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    },
    whisper={"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32},
    beats={
        "encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "encoder_attention_heads": 2,
        "embed_dim": 16, "conv_pos": 8, "conv_pos_groups": 4,
    },
    qformer={"num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32},
    lora_rank=2,
    dtype="float32",
)  # fmt: skip
"""For tests."""

SMOL = Sizes(
    name="smol",
    language_model={
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
    },
    whisper={"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536},
    beats={},
    qformer={"num_layers": 2, "hidden_size": 768, "num_heads": 12, "intermediate_size": 3072},
    compiles=True,
)  # fmt: skip
"""SmolLM2-135M, Whisper tiny.en, BEATs base (whose sizes are the defaults), SALMONN's Q-Former."""

LLAMA_7B = Sizes(
    name="7b",
    language_model={
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
    },
    whisper={"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120},
    beats={},
    qformer={"num_layers": 2, "hidden_size": 768, "num_heads": 12, "intermediate_size": 3072},
    micro_batch_tokens=8192,
)  # fmt: skip
"""LLaMA-7B, Whisper large-v2, BEATs base: for a GPU of 80 GiB, or one of 40 with smaller passes."""

SIZES = {sizes.name: sizes for sizes in (TINY, SMOL, LLAMA_7B)}


@dataclass(frozen=True)
class Switches:
    """What is measured on and off; each removes work and leaves the loss as it is (`compiled`: up to rounding)."""

    state_cache: bool = True
    real_lengths: bool = True
    shared_prefix: bool = True
    supervised_only: bool = True
    compiled: bool = True


def find_sizes(name: str) -> Sizes:
    """Shapes by name.

    Raises:
        RecipeError: if there are none of that name.
    """
    if name not in SIZES:
        raise RecipeError(f"--size {name}: unknown. Accepted: {', '.join(SIZES)}.")
    return SIZES[name]


def bench_recipe(
    sizes: Sizes,
    folder: Path,
    *,
    audio: Audio = "salmonn",
    second_encoder: bool = False,
    switches: Switches | None = None,
    batch_records: int = 8,
    epochs: int = 2,
    micro_batch_tokens: int = 2048,
    float32: bool = False,
) -> Recipe:
    """The recipe of a measurement on the records in `folder`.

    `audio` decides the projector, and with it the audio positions a second: SALMONN's windows (about 3), Granite
    Speech's (10), or Qwen2-Audio's mean of two steps (25). Dropout is 0 everywhere, so that losses can be compared.
    """
    switches = switches or Switches()
    padding = "real" if switches.real_lengths else "full"
    dtype = "float32" if float32 else sizes.dtype
    encoders: list[dict[str, Any]] = [
        {"name": "whisper", "base": "random", "padding": padding, "dtype": dtype, "random_sizes": sizes.whisper}
    ]
    if second_encoder:
        beats = {"name": "beats", "base": "random", "padding": padding, "dtype": dtype, "random_sizes": sizes.beats}
        encoders.append(beats)
    return Recipe.model_validate(
        {
            "name": f"bench-{sizes.name}",
            "encoders": encoders,
            "projector": _projector(audio, sizes),
            "language_model": {
                "base": "random",
                "template": "chatml",
                "dtype": dtype,
                "compile": "none",  # by `lalm.bench.ours`, before what is timed
                "lora": {"rank": sizes.lora_rank, "dropout": 0.0, "targets": "qv"},
                "random_sizes": sizes.language_model,
            },
            "data": {
                "folder": folder,
                "sources": {"bench": {"records": "train.jsonl"}},
                "max_text_tokens": 2048,
                "cache_states": switches.state_cache,
                # Losses with and without the cache can then be compared; in bfloat16 nothing is lost either.
                "cache_dtype": "float32" if dtype == "float32" else "bfloat16",
                "packing": "shared_prefix" if switches.shared_prefix else "none",
            },
            "stages": [
                {
                    "name": "bench",
                    "learning_rates": {"projector": 1e-4, "lora": 1e-4},
                    "epochs": epochs,
                    "batch_records": batch_records,
                    "micro_batch_tokens": micro_batch_tokens,
                    "save_every_steps": 1_000_000,
                }
            ],
            "output": {"folder": folder / "run", "log_to": []},
        }
    )


def _projector(audio: Audio, sizes: Sizes) -> dict[str, Any]:
    if audio == "qwen2_audio":
        return {"name": "linear", "pool_steps": 2}
    window, queries = (17, 1) if audio == "salmonn" else (15, 3)
    return {"name": "qformer", "window_steps": window, "queries": queries, "dropout": 0.0, **sizes.qformer}
