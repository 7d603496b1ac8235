"""Granite Speech's encoder (arXiv 2505.08699): a Conformer trained with CTC, over pairs of log-mel frames.

50 states a second. Attention stays within blocks of `context_size` steps (4 s), with Shaw's relative positions; the
convolutions reach over their borders. After half of the layers the network's own guess of the characters (a softmax
over its CTC classes) is added to the states.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import GraniteSpeechCTCEncoder, GraniteSpeechEncoderConfig, PreTrainedModel

from lalm.audio.features import GraniteSpeechFrontEnd
from lalm.audio.lengths import Chain
from lalm.encoders.base import AudioEncoder, layer_mix
from lalm.encoders.pretrained import Facts, Family, PretrainedEncoder, build_wrapped, fingerprint_wrapped, load_wrapped
from lalm.errors import ModelError
from lalm.recipe.encoders import GraniteSpeechSection

STACKED_FRAMES = 2
RANDOM_SIZES: dict[str, Any] = {
    "input_dim": 160,
    "num_layers": 2,
    "hidden_dim": 32,
    "feedforward_mult": 2,
    "num_heads": 4,
    "output_dim": 12,
    "context_size": 25,
    "max_pos_emb": 32,
    "conv_kernel_size": 7,
}
"""Sizes of a `base: random` encoder, for tests."""
REST = r"(model\.)?(language_model|projector)\.|lm_head\."
"""What the whole model holds beside its encoder."""


class GraniteSpeechEncoder(PretrainedEncoder):
    """Stacked log-mel `[N, 160, F]` -> states `[N, F, hidden_dim]`.

    The statistics of its batch norms stay those of the base, also where a stage trains it: taken from a batch they
    would make a clip's states depend on the other clips.
    """

    frame_rule = Chain()

    def __init__(self, section: GraniteSpeechSection, model: PreTrainedModel, facts: Facts):
        super().__init__(model, facts)
        config = model.config
        if config.input_dim % STACKED_FRAMES:
            raise ModelError(
                f"encoders: granite_speech: input_dim {config.input_dim} does not hold two frames of as many mel bins"
            )
        self.layer_width = config.hidden_dim
        self.front_end = GraniteSpeechFrontEnd(
            num_mel_bins=config.input_dim // STACKED_FRAMES,
            stacked_frames=STACKED_FRAMES,
            chunk_seconds=section.chunk_seconds,
        )
        self.mix = layer_mix(section, config.num_layers, section.name)

    def train(self, mode: bool = True) -> GraniteSpeechEncoder:
        super().train(mode)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        model = self.model
        hidden = model.input_linear(features.transpose(1, 2))
        outputs = []
        for number, layer in enumerate(model.layers, start=1):
            hidden = layer(hidden, attention_dists=model.attention_dists)
            if number == model.num_layers // 2:
                hidden = hidden + model.out_mid(model.out(hidden).softmax(dim=-1))
            outputs.append(hidden)
        return self.mix(outputs)


def build(section: GraniteSpeechSection, config: dict[str, Any] | None) -> AudioEncoder:
    """Random weights; sizes from `config`, the base's files, or `random_sizes`."""
    return build_wrapped(FAMILY, section, config)


def load(section: GraniteSpeechSection) -> AudioEncoder:
    """The base's weights; of a whole model's files only the encoder's tensors are kept."""
    return load_wrapped(FAMILY, section)


def fingerprint(section: GraniteSpeechSection) -> str:
    """Weights and options."""
    return fingerprint_wrapped(section)


def _no_facts(section: GraniteSpeechSection, config: Any, raw: dict[str, Any], preprocessor: dict[str, Any]) -> Facts:
    return {}


FAMILY = Family(
    GraniteSpeechEncoderConfig,
    GraniteSpeechCTCEncoder,
    GraniteSpeechEncoder,
    ("granite_speech", "granite_speech_encoder"),
    _no_facts,
    RANDOM_SIZES,
    part="encoder_config",
    renames={r"^(model\.)?encoder\.": ""},
    left_over=REST,
)
