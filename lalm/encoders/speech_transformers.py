"""wav2vec 2.0, HuBERT, WavLM and MERT: convolutions over the waveform, then a transformer; one wrapper for all.

Sources: arXiv 2006.11477, 2106.07447, 2110.13900, 2306.00107. About 50 states a second (MERT 75). Layers are counted
from the first block; the last one's output is behind the final norm of models that have one.

The base models' group norm runs over time, so padding would change every state: pieces of different length are run
apart (see `AudioEncoder`), as their own extractor's advice, to pad with zeros and without mask, cannot do. SpecAugment
and layer drop are off in training too: a clip has one sequence of states. With `units` the states become the numbers of
k-means centres (see `lalm.encoders.units`).

MERT's checkpoints bring code of their own, which is not run. Read are those that are HuBERT's network; refused are
`feature_extractor_cqt` (a constant-Q transform added to the input) and `deepnorm`. `attention_relax`, a rescaling in
front of the softmax that leaves it the same, is passed over.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import (
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from lalm.audio.features import WaveformFrontEnd
from lalm.audio.lengths import Chain, Conv
from lalm.encoders.base import AudioEncoder, layer_mix
from lalm.encoders.pretrained import Facts, Family, PretrainedEncoder, build_wrapped, fingerprint_wrapped, load_wrapped
from lalm.encoders.units import empty_quantiser
from lalm.errors import ModelError
from lalm.recipe.encoders import SpeechSection

SPEECH_RATE_HZ, MUSIC_RATE_HZ = 16000, 24000
RANDOM_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
"""Sizes of a `base: random` encoder, for tests."""
SETTLED = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "add_adapter": False}
HEADS = (
    r"(\w+\.)?(lm_head\.|project_(hid|q)\.|quantizer\.|classifier\.|projector\.|layer_weights|adapter\.|"
    r"masked_spec_embed)"
)
"""Of checkpoints with a head (CTC, pre-training, classification); the vector of masked steps; a length adapter."""
MERT_ONLY = {"feature_extractor_cqt": "a constant-Q transform beside the waveform", "deepnorm": "deep norm"}


class SpeechEncoder(PretrainedEncoder):
    """Waveform `[N, 1, S]` -> states `[N, T, hidden_size]`."""

    def __init__(self, section: SpeechSection, model: PreTrainedModel, facts: Facts):
        super().__init__(model, facts)
        config = model.config
        self.layer_width = config.hidden_size
        self.front_end = WaveformFrontEnd(chunk_seconds=section.chunk_seconds, **facts)
        convolutions = zip(config.conv_kernel, config.conv_stride, strict=True)
        self.frame_rule = Chain(rules=tuple(Conv(kernel=kernel, stride=stride) for kernel, stride in convolutions))
        self.mix = layer_mix(section, config.num_hidden_layers, section.name)  # type: ignore[attr-defined]
        self.quantiser = empty_quantiser(section, self.layer_width)

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        wants_last = self.mix.layers == "last"
        output = self.model(features[:, 0], output_hidden_states=not wants_last)
        if wants_last:
            return output.last_hidden_state
        return self.mix([*output.hidden_states[1:-1], output.last_hidden_state])


def build(section: SpeechSection, config: dict[str, Any] | None) -> AudioEncoder:
    """Random weights; sizes from `config`, the base's files, or `random_sizes`."""
    return build_wrapped(FAMILIES[section.name], section, config)  # type: ignore[attr-defined]


def load(section: SpeechSection) -> AudioEncoder:
    """The base's weights."""
    return load_wrapped(FAMILIES[section.name], section)  # type: ignore[attr-defined]


def fingerprint(section: SpeechSection) -> str:
    """Weights and options."""
    return fingerprint_wrapped(section)


def _facts(section: SpeechSection, config: Any, raw: dict[str, Any], preprocessor: dict[str, Any]) -> Facts:
    """Rate and normalisation, from the base where it says them.

    Raises:
        ModelError: if nobody says whether the waveform is normalised, or a MERT needs more than HuBERT's network.
    """
    is_mert = section.name == "mert"  # type: ignore[attr-defined]
    for key, meaning in MERT_ONLY.items() if is_mert else ():
        if raw.get(key):
            raise ModelError(
                f"encoders: mert: base {section.base!r} has {key}: {raw[key]} ({meaning}), which only the code beside "
                "that checkpoint computes and which is not run. Take a MERT without it."
            )
    rate = MUSIC_RATE_HZ if is_mert else SPEECH_RATE_HZ
    rate = preprocessor.get("sampling_rate", raw.get("sample_rate", rate))
    normalised = section.normalised
    if normalised == "auto":
        normalised = True if section.base == "random" else preprocessor.get("do_normalize", "auto")
    if normalised == "auto":
        raise ModelError(
            f"encoders: base {section.base!r} has no preprocessor_config.json with do_normalize, and models of this "
            "kind differ in it. Put the file beside the weights, or set `normalised` to true or false."
        )
    return {"sample_rate_hz": int(rate), "is_normalised": bool(normalised)}


def _family(config_class: Any, model_class: Any, model_types: tuple[str, ...]) -> Family:
    return Family(
        config_class, model_class, SpeechEncoder, model_types, _facts, RANDOM_SIZES, settled=SETTLED, left_over=HEADS
    )


FAMILIES = {
    "wav2vec2": _family(Wav2Vec2Config, Wav2Vec2Model, ("wav2vec2",)),
    "hubert": _family(HubertConfig, HubertModel, ("hubert",)),
    "wavlm": _family(WavLMConfig, WavLMModel, ("wavlm",)),
    "mert": _family(HubertConfig, HubertModel, ("mert_model", "hubert")),
}
