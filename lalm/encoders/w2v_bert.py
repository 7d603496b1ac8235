"""w2v-BERT 2.0 (arXiv 2312.05187): a Conformer over pairs of filterbank frames, 50 states a second."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, Wav2Vec2BertConfig, Wav2Vec2BertModel

from lalm.audio.features import SeamlessFrontEnd
from lalm.audio.lengths import Chain
from lalm.encoders.base import AudioEncoder, layer_mix
from lalm.encoders.pretrained import Facts, Family, PretrainedEncoder, build_wrapped, fingerprint_wrapped, load_wrapped
from lalm.errors import ModelError
from lalm.recipe.encoders import Wav2Vec2BertSection

RANDOM_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_depthwise_kernel_size": 7,
}
"""Sizes of a `base: random` encoder, for tests."""
SETTLED = {
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "layerdrop": 0.0,
    "add_adapter": False,
    "use_intermediate_ffn_before_adapter": False,
}
HEADS = r"(\w+\.)?(lm_head\.|classifier\.|projector\.|layer_weights|adapter\.|intermediate_ffn\.|masked_spec_embed)"
"""Of checkpoints with a head; the vector of masked steps; a length adapter."""


class Wav2Vec2BertEncoder(PretrainedEncoder):
    """Stacked filterbank `[N, 160, F]` -> states `[N, F, hidden_size]`, those in front of a length adapter."""

    frame_rule = Chain()

    def __init__(self, section: Wav2Vec2BertSection, model: PreTrainedModel, facts: Facts):
        super().__init__(model, facts)
        self.width = model.config.hidden_size
        self.front_end = SeamlessFrontEnd(chunk_seconds=section.chunk_seconds, **facts)
        if self.front_end.num_mel_bins * self.front_end.stacked_frames != model.config.feature_projection_input_dim:
            raise ModelError(
                f"encoders: w2v_bert: {facts['num_mel_bins']} mel bins in stacks of {facts['stacked_frames']} do not "
                f"make the {model.config.feature_projection_input_dim} inputs that the model has. Are config.json and "
                "preprocessor_config.json of one model?"
            )
        self.mix = layer_mix(section.layers, model.config.num_hidden_layers, section.name)

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        output = self.model(features.transpose(1, 2), output_hidden_states=self.mix.layers != "last")
        if self.mix.layers == "last":
            return output.last_hidden_state
        return self.mix([*output.hidden_states[1:-1], output.last_hidden_state])


def build(section: Wav2Vec2BertSection, config: dict[str, Any] | None) -> AudioEncoder:
    """Random weights; sizes from `config`, the base's files, or `random_sizes`."""
    return build_wrapped(FAMILY, section, config)


def load(section: Wav2Vec2BertSection) -> AudioEncoder:
    """The base's weights."""
    return load_wrapped(FAMILY, section)


def fingerprint(section: Wav2Vec2BertSection) -> str:
    """Weights and options."""
    return fingerprint_wrapped(section)


def _facts(section: Wav2Vec2BertSection, config: Any, raw: dict[str, Any], preprocessor: dict[str, Any]) -> Facts:
    return {"num_mel_bins": preprocessor.get("num_mel_bins", 80), "stacked_frames": preprocessor.get("stride", 2)}


FAMILY = Family(
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2BertEncoder,
    ("wav2vec2-bert",),
    _facts,
    RANDOM_SIZES,
    settled=SETTLED,
    left_over=HEADS,
)
