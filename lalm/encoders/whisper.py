"""Whisper's encoder (arXiv 2212.04356), for clips of any length up to 30 s at a time.

The layers are transformers' own; the forward is ours, since theirs takes 3000 frames only. Whisper was trained on clips
padded to 30 s: `padding` says what it is shown here. Steps that are only padding are never handed on.
"""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder as TransformersWhisperEncoder

from lalm.audio.features import WhisperFrontEnd
from lalm.audio.lengths import Conv
from lalm.encoders.base import AudioEncoder, layer_mix
from lalm.encoders.whisper_formats import read_whisper, read_whisper_sizes, whisper_fingerprint
from lalm.errors import ModelError
from lalm.recipe.encoders import WhisperSection

SIZE_KEYS = (
    *("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins"),
    "max_source_positions",
)
RANDOM_SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
}
"""Sizes of a `base: random` encoder, for tests."""
STEP_SECONDS = 0.02


class WhisperEncoder(AudioEncoder):
    """Log-mel `[N, M, F]` -> states `[N, T, d_model]`, one step for two frames (50 a second)."""

    front_end: WhisperFrontEnd
    model: Any  # transformers' WhisperEncoder, by whose parts the forward goes
    frame_rule = Conv(kernel=3, stride=2, padding=1)

    def __init__(self, section: WhisperSection, sizes: dict[str, Any]):
        super().__init__()
        self.sizes = {key: sizes[key] for key in SIZE_KEYS}
        self.width = sizes["d_model"]
        self.front_end = WhisperFrontEnd(
            num_mel_bins=sizes["num_mel_bins"],
            padding=section.padding,
            margin_seconds=section.margin_seconds,
            chunk_seconds=sizes["max_source_positions"] * STEP_SECONDS,
        )
        config = WhisperConfig(**{**self.sizes, "attn_implementation": "sdpa"})
        self.model = TransformersWhisperEncoder(config)
        self.mix = layer_mix(section.layers, sizes["encoder_layers"], "whisper")

    def config_dict(self) -> dict[str, Any]:
        return dict(self.sizes)

    def shown_frames(self, real_frames: int) -> int:
        return self.front_end.run_frames(real_frames)

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        model = self.model
        hidden = nn.functional.gelu(model.conv1(features))
        hidden = nn.functional.gelu(model.conv2(hidden)).transpose(1, 2)
        hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
        outputs = []
        for layer in model.layers:
            hidden = layer(hidden, attention_mask=None)
            outputs.append(hidden)
        outputs[-1] = model.layer_norm(outputs[-1])
        return self.mix(outputs)


def build(section: WhisperSection, config: dict[str, Any] | None) -> WhisperEncoder:
    """Random weights; sizes from `config`, the base's files, or `random_sizes`."""
    if config is None and section.base != "random":
        config = read_whisper_sizes(section.base)
    return WhisperEncoder(section, {**RANDOM_SIZES, **section.random_sizes, **(config or {})})


def load(section: WhisperSection) -> WhisperEncoder:
    """The base's weights, whichever of the three forms they are in."""
    sizes, state = read_whisper(section.base)
    encoder = WhisperEncoder(section, sizes)
    try:
        encoder.model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelError(f"encoders: the weights of {section.base!r} do not fit: {error}") from None
    return encoder


def fingerprint(section: WhisperSection) -> str:
    """Weights, layers and padding."""
    weights = "random" if section.base == "random" else whisper_fingerprint(section.base)
    options = section.model_dump_json(exclude={"base"})
    return hashlib.sha256(f"{weights}:{options}".encode()).hexdigest()
