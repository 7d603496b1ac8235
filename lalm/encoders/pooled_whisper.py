"""The encoders of Qwen2-Audio (arXiv 2407.10759) and Audio Flamingo 3 (arXiv 2507.08128): Whisper's, then pairs pooled.

25 states a second. Both models show their encoder 30 s with the padding masked in attention, so that a real step hears
of the silence only what the convolutions reach over the clip's end. That is what is computed here, without the masked
steps: the clip's frames and `BORDER_FRAMES` of silence go through the convolutions, its own steps through the rest.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AudioFlamingo3EncoderConfig, PreTrainedModel, Qwen2AudioEncoderConfig
from transformers.models.audioflamingo3.modeling_audioflamingo3 import AudioFlamingo3Encoder
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from lalm.audio.features import WhisperFrontEnd
from lalm.audio.lengths import Chain, Conv
from lalm.encoders.base import AudioEncoder, groups_of_equal_length, layer_mix
from lalm.encoders.pretrained import Facts, Family, PretrainedEncoder, build_wrapped, fingerprint_wrapped, load_wrapped
from lalm.encoders.whisper import STEP_SECONDS
from lalm.recipe.encoders import EncoderSection

BORDER_FRAMES = 4
"""Frames behind the clip that the two convolutions reach from its last step."""
RANDOM_SIZES: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "num_mel_bins": 128,
    "max_source_positions": 1500,
}
"""Sizes of a `base: random` encoder, for tests."""
CONVOLUTIONS = Conv(kernel=3, stride=2, padding=1)
REST = r"(model\.)?(language_model|multi_modal_projector)\.|lm_head\."
"""What the whole model holds beside its encoder."""


class PooledWhisperEncoder(PretrainedEncoder):
    """Log-mel `[N, M, F]` -> states `[N, T, d_model]`, one step for four frames."""

    front_end: WhisperFrontEnd
    frame_rule = Chain(rules=(CONVOLUTIONS, Conv(kernel=2, stride=2)))

    def __init__(self, section: EncoderSection, model: PreTrainedModel, facts: Facts):
        super().__init__(model, facts)
        config = model.config
        self.width = config.d_model
        self.front_end = WhisperFrontEnd(
            num_mel_bins=config.num_mel_bins, padding="full", chunk_seconds=config.max_source_positions * STEP_SECONDS
        )
        self.mix = layer_mix(section.layers, config.encoder_layers, section.name)  # type: ignore[attr-defined]

    def shown_frames(self, real_frames: int) -> int:
        return min(real_frames + BORDER_FRAMES, self.front_end.run_frames(real_frames))

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        model = self.model
        hidden = nn.functional.gelu(model.conv2(nn.functional.gelu(model.conv1(features)))).transpose(1, 2)
        hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
        states = hidden.new_zeros(len(hidden), self.frame_rule.count(max(num_frames)), self.width)
        # Pieces that end within the border of a whole chunk are shown equally much and yet differ in steps.
        for steps, indices in groups_of_equal_length([CONVOLUTIONS.count(frames) for frames in num_frames]).items():
            mixed = self._layers(hidden[indices, :steps])
            states[indices, : mixed.shape[1]] = mixed
        return states

    def _layers(self, hidden: Tensor) -> Tensor:
        """`[n, 2T, d_model]` -> pooled and mixed `[n, T, d_model]`; the norm follows the last layer's pooling."""
        outputs = []
        for layer in self.model.layers:
            hidden = layer(hidden, None)
            outputs.append(self.model.avg_pooler(hidden.transpose(1, 2)).transpose(1, 2))
        outputs[-1] = self.model.layer_norm(outputs[-1])
        return self.mix(outputs)


def build(section: EncoderSection, config: dict[str, Any] | None) -> AudioEncoder:
    """Random weights; sizes from `config`, the base's files, or `random_sizes`."""
    return build_wrapped(FAMILIES[section.name], section, config)  # type: ignore[attr-defined]


def load(section: EncoderSection) -> AudioEncoder:
    """The base's weights; of a whole model's files only the encoder's tensors are kept."""
    return load_wrapped(FAMILIES[section.name], section)  # type: ignore[attr-defined]


def fingerprint(section: EncoderSection) -> str:
    """Weights and options."""
    return fingerprint_wrapped(section)


def _no_facts(section: EncoderSection, config: Any, raw: dict[str, Any], preprocessor: dict[str, Any]) -> Facts:
    return {}


def _family(config_class: Any, model_class: Any, model_types: tuple[str, ...]) -> Family:
    return Family(
        config_class,
        model_class,
        PooledWhisperEncoder,
        model_types,
        _no_facts,
        RANDOM_SIZES,
        part="audio_config",
        renames={r"^(model\.)?audio_tower\.": ""},
        left_over=REST,
    )


FAMILIES = {
    "qwen2_audio": _family(Qwen2AudioEncoderConfig, Qwen2AudioEncoder, ("qwen2_audio", "qwen2_audio_encoder")),
    "audio_flamingo3": _family(
        AudioFlamingo3EncoderConfig, AudioFlamingo3Encoder, ("audioflamingo3", "audioflamingo3_encoder")
    ),
}
