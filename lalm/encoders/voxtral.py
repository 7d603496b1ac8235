"""Voxtral's encoder (arXiv 2507.13264): Whisper's, over a clip filled up with silence to whole chunks of 30 s.

Nothing is masked: as in Whisper's training every step hears the silence, and the published model hands on its states
too (`silence: kept`). 50 states a second.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, VoxtralEncoderConfig
from transformers.models.voxtral.modeling_voxtral import VoxtralEncoder as TransformersVoxtralEncoder

from lalm.audio.features import VoxtralFrontEnd
from lalm.audio.lengths import Conv
from lalm.encoders.base import AudioEncoder, layer_mix
from lalm.encoders.pretrained import Facts, Family, PretrainedEncoder, build_wrapped, fingerprint_wrapped, load_wrapped
from lalm.encoders.whisper import STEP_SECONDS
from lalm.recipe.encoders import VoxtralSection

RANDOM_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_mel_bins": 128,
    "max_source_positions": 1500,
}
"""Sizes of a `base: random` encoder, for tests."""
REST = r"(model\.)?(language_model|multi_modal_projector)\.|lm_head\."
"""What the whole model holds beside its encoder."""


class VoxtralEncoder(PretrainedEncoder):
    """Log-mel `[N, M, F]` -> states `[N, T, hidden_size]`, one step for two frames."""

    front_end: VoxtralFrontEnd
    frame_rule = Conv(kernel=3, stride=2, padding=1)

    def __init__(self, section: VoxtralSection, model: PreTrainedModel, facts: Facts):
        super().__init__(model, facts)
        config = model.config
        self.layer_width = config.hidden_size
        self.front_end = VoxtralFrontEnd(
            num_mel_bins=config.num_mel_bins,
            chunk_seconds=config.max_source_positions * STEP_SECONDS,
            silence=section.silence,
        )
        self.mix = layer_mix(section, config.num_hidden_layers, section.name)

    @property
    def step_seconds(self) -> float:
        return STEP_SECONDS  # Their number does not tell it: it is the same for a clip of any length.

    def shown_frames(self, real_frames: int) -> int:
        return self.front_end.chunk_frames

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        model = self.model
        hidden = nn.functional.gelu(model.conv2(nn.functional.gelu(model.conv1(features)))).transpose(1, 2)
        hidden = hidden + model.embed_positions(torch.arange(hidden.shape[1], device=hidden.device))
        outputs = []
        for layer in model.layers:
            hidden = layer(hidden, None)
            outputs.append(hidden)
        outputs[-1] = model.layer_norm(outputs[-1])
        return self.mix(outputs)


def build(section: VoxtralSection, config: dict[str, Any] | None) -> AudioEncoder:
    """Random weights; sizes from `config`, the base's files, or `random_sizes`."""
    return build_wrapped(FAMILY, section, config)


def load(section: VoxtralSection) -> AudioEncoder:
    """The base's weights; of a whole model's files only the encoder's tensors are kept."""
    return load_wrapped(FAMILY, section)


def fingerprint(section: VoxtralSection) -> str:
    """Weights and options."""
    return fingerprint_wrapped(section)


def _no_facts(section: VoxtralSection, config: Any, raw: dict[str, Any], preprocessor: dict[str, Any]) -> Facts:
    return {}


FAMILY = Family(
    VoxtralEncoderConfig,
    TransformersVoxtralEncoder,
    VoxtralEncoder,
    ("voxtral", "voxtral_encoder"),
    _no_facts,
    RANDOM_SIZES,
    part="audio_config",
    renames={r"^(model\.)?audio_tower\.": ""},
    left_over=REST,
)
