"""Neural codecs as encoders: the continuous vectors in front of the quantiser.

EnCodec (arXiv 2210.13438), 75 a second at 24 kHz; DAC (arXiv 2306.06546), 50 at 16 kHz to 86 at 44.1 kHz; Mimi (arXiv
2410.00037), 12.5 at 24 kHz. Each started hop has a state; DAC's last hop is filled with silence, as its extractor does.

EnCodec at 48 kHz wants two channels, a normalised level and pieces of one second: the clip is given to both channels,
and its pieces do not overlap (the published one overlaps them by 1 %).
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiEncoderModel,
    PreTrainedModel,
)

from lalm.audio.features import WaveformFrontEnd
from lalm.audio.lengths import Chain, Hops, LengthRule
from lalm.encoders.base import AudioEncoder, layer_mix
from lalm.encoders.pretrained import Facts, Family, PretrainedEncoder, build_wrapped, fingerprint_wrapped, load_wrapped
from lalm.recipe.encoders import CodecSection

LEVEL_FLOOR = 1e-8
"""Added to the level that EnCodec divides by."""
SMALL_ENCODEC: dict[str, Any] = {"num_filters": 4, "hidden_size": 16, "codebook_size": 16, "num_lstm_layers": 1}
SMALL_DAC: dict[str, Any] = {
    "encoder_hidden_size": 4,
    "decoder_hidden_size": 32,
    "n_codebooks": 2,
    "codebook_size": 16,
    "downsampling_ratios": (2, 4, 5, 8),
}
SMALL_MIMI: dict[str, Any] = {
    "num_filters": 4,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "codebook_size": 16,
    "codebook_dim": 8,
    "num_quantizers": 2,
    "sliding_window": 10,
    "vector_quantization_hidden_dimension": 8,
    "upsample_groups": 16,
}
"""Sizes of `base: random` encoders, for tests."""


class CodecEncoder(PretrainedEncoder):
    """Waveform `[N, 1, S]` -> states `[N, T, width]`, one for each started hop."""

    front_end: WaveformFrontEnd

    def __init__(self, section: CodecSection, model: PreTrainedModel, facts: Facts, hops: tuple[int, ...], width: int):
        super().__init__(model, facts)
        self.width = width
        seconds = min(section.chunk_seconds, getattr(model.config, "chunk_length_s", None) or section.chunk_seconds)
        self.front_end = WaveformFrontEnd(chunk_seconds=seconds, sample_rate_hz=model.config.sampling_rate)
        rules: tuple[LengthRule, ...] = tuple(Hops(hop_samples=hop) for hop in hops)
        self.frame_rule = rules[0] if len(rules) == 1 else Chain(rules=rules)
        self.mix = layer_mix(section.layers, 1, section.name)  # type: ignore[attr-defined]


class EncodecEncoder(CodecEncoder):
    """EnCodec's encoder, without quantiser and decoder."""

    def __init__(self, section: CodecSection, model: PreTrainedModel, facts: Facts):
        super().__init__(section, _encoder_of(model), facts, (model.config.hop_length,), model.config.hidden_size)

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        wave = features.expand(-1, self.model.config.audio_channels, -1)
        if self.model.config.normalize:
            level = wave.mean(dim=1, keepdim=True).square().mean(dim=-1, keepdim=True).sqrt()
            wave = wave / (level + LEVEL_FLOOR)
        return self.model.encoder(wave).transpose(1, 2)


class DacEncoder(CodecEncoder):
    """DAC's encoder, without quantiser and decoder."""

    def __init__(self, section: CodecSection, model: PreTrainedModel, facts: Facts):
        super().__init__(section, _encoder_of(model), facts, (model.config.hop_length,), model.config.hidden_size)

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        filler = -features.shape[2] % self.model.config.hop_length
        return self.model.encoder(nn.functional.pad(features, (0, filler))).transpose(1, 2)


class MimiEncoder(CodecEncoder):
    """Mimi's encoder: convolutions, a causal transformer, and the step down to 12.5 a second."""

    def __init__(self, section: CodecSection, model: PreTrainedModel, facts: Facts):
        config = model.config
        hop = math.prod(config.upsampling_ratios)
        super().__init__(section, model, facts, (hop, config.frame_size // hop), config.hidden_size)

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        return self.model(features, use_streaming=False).latents.transpose(1, 2)


def build(section: CodecSection, config: dict[str, Any] | None) -> AudioEncoder:
    """Random weights; sizes from `config`, the base's files, or `random_sizes`."""
    return build_wrapped(FAMILIES[section.name], section, config)  # type: ignore[attr-defined]


def load(section: CodecSection) -> AudioEncoder:
    """The base's weights."""
    return load_wrapped(FAMILIES[section.name], section)  # type: ignore[attr-defined]


def fingerprint(section: CodecSection) -> str:
    """Weights and options."""
    return fingerprint_wrapped(section)


def _encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model without the parts that come after its encoder, which nothing here reads and no gradient would reach."""
    del model.decoder, model.quantizer
    return model


def _no_facts(section: CodecSection, config: Any, raw: dict[str, Any], preprocessor: dict[str, Any]) -> Facts:
    return {}


FAMILIES = {
    "encodec": Family(EncodecConfig, EncodecModel, EncodecEncoder, ("encodec",), _no_facts, SMALL_ENCODEC),
    "dac": Family(DacConfig, DacModel, DacEncoder, ("dac",), _no_facts, SMALL_DAC),
    "mimi": Family(
        MimiConfig,
        MimiEncoderModel,
        MimiEncoder,
        ("mimi",),
        _no_facts,
        SMALL_MIMI,
        left_over=r"decoder|quantizer\.|upsample\.",
    ),
}
