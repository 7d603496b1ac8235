"""Audio encoders by name: one file each, one line in the table."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import torch

from lalm.encoders.base import AudioEncoder
from lalm.recipe.encoders import EncoderSection


class EncoderModule(Protocol):
    """What an encoder's file offers."""

    @staticmethod
    def build(section: Any, config: dict[str, Any] | None) -> AudioEncoder:
        """Random weights; sizes from `config`, else from the base's files or the section."""

    @staticmethod
    def load(section: Any) -> AudioEncoder:
        """The base's weights."""

    @staticmethod
    def fingerprint(section: Any) -> str:
        """A digest of everything that decides the states: weights and options."""


ENCODERS = {
    "whisper": "lalm.encoders.whisper",
    "beats": "lalm.encoders.beats",
    "clap": "lalm.encoders.clap",
    "ast": "lalm.encoders.ast",
    "cav_mae": "lalm.encoders.cav_mae",
    "wav2vec2": "lalm.encoders.speech_transformers",
    "hubert": "lalm.encoders.speech_transformers",
    "wavlm": "lalm.encoders.speech_transformers",
    "mert": "lalm.encoders.speech_transformers",
    "w2v_bert": "lalm.encoders.w2v_bert",
    "encodec": "lalm.encoders.codecs",
    "dac": "lalm.encoders.codecs",
    "mimi": "lalm.encoders.codecs",
    "qwen2_audio": "lalm.encoders.pooled_whisper",
    "audio_flamingo3": "lalm.encoders.pooled_whisper",
    "voxtral": "lalm.encoders.voxtral",
    "granite_speech": "lalm.encoders.granite_speech",
}
"""The encoders that a recipe can name, and the file of each."""


def build_encoder(section: EncoderSection, config: dict[str, Any] | None = None) -> AudioEncoder:
    """An encoder with random weights. `config` is what `AudioEncoder.config_dict` gave."""
    return _module(section).build(section, config)


def load_encoder(section: EncoderSection, dtype: torch.dtype = torch.float32) -> AudioEncoder:
    """An encoder with its base's weights, in eval mode, frozen.

    The weights of a learned sum of layers stay float32: they are trained with the projector, whatever the encoder is.

    Raises:
        ModelError: if the base cannot be found, or its weights do not fit exactly.
    """
    encoder = _module(section).build(section, None) if section.base == "random" else _module(section).load(section)
    encoder.to(dtype).mix.float()
    return encoder.eval().requires_grad_(False)


def encoder_fingerprint(section: EncoderSection) -> str:
    """A digest of weights and options: equal digests mean equal states."""
    return _module(section).fingerprint(section)


def encoder_name(section: EncoderSection) -> str:
    """The name that a recipe calls the encoder."""
    return section.name  # type: ignore[attr-defined]


def _module(section: EncoderSection) -> EncoderModule:
    return import_module(ENCODERS[encoder_name(section)])  # type: ignore[return-value]
