"""CLAP's audio tower, HTSAT (arXiv 2211.06687): a shifted-window transformer over ten seconds of log-mel.

It takes nothing but whole ten seconds, so a shorter piece is repeated into them as published. 32 states for ten
seconds, each the mean over the two frequency bins that are left; only those that the piece itself began are handed on.

Checkpoints with fusion look at a whole long clip beside a part of it. Long clips are cut here instead, so no piece is
longer than ten seconds and the fusion branch is at rest; transformers' extractor, unlike this, lights it at random in
one clip of a batch without long ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import ClapAudioConfig, ClapAudioModel, PreTrainedModel

from lalm.audio.features import ClapFrontEnd
from lalm.audio.lengths import Constant, Resample
from lalm.encoders.base import AudioEncoder, layer_mix
from lalm.encoders.pretrained import Facts, Family, PretrainedEncoder, build_wrapped, fingerprint_wrapped, load_wrapped
from lalm.recipe.encoders import ClapSection

RANDOM_SIZES: dict[str, Any] = {
    "patch_embeds_hidden_size": 8,
    "depths": (1, 1, 1, 1),
    "num_attention_heads": (2, 2, 2, 2),
    "hidden_size": 64,
}
"""Sizes of a `base: random` encoder, for tests; `hidden_size` is the first width doubled with each later stage."""
FUSION_VIEWS = 4
"""Spectrograms of one clip that a checkpoint with fusion reads: the whole, and three parts."""
REST = r"text_model\.|text_projection\.|audio_projection\.|logit_scale_"
"""What CLAP holds beside its audio tower."""


class ClapEncoder(PretrainedEncoder):
    """Log-mel `[N, 64, 1001]` -> states `[N, T, hidden_size]`, `T` 32 for ten seconds, or 1 with `pooling: mean`."""

    front_end: ClapFrontEnd

    def __init__(self, section: ClapSection, model: PreTrainedModel, facts: Facts):
        super().__init__(model, facts)
        config = model.config
        tower = self.model.audio_encoder
        self.width = tower.num_features
        self.front_end = ClapFrontEnd(num_mel_bins=config.num_mel_bins, fill=section.fill, **facts)
        self.is_pooled = section.pooling == "mean"
        chunk_frames = self.front_end.length_rule().count(self.front_end.chunk_samples)
        # The spectrogram is folded to a square: `freq_ratio` runs of time, one above the other.
        run_steps = config.spec_size // config.patch_stride[1] // 2 ** (tower.num_layers - 1)
        steps = run_steps * tower.freq_ratio
        self.frame_rule = Constant(outputs=1) if self.is_pooled else Resample(from_hz=chunk_frames, to_hz=steps)
        self.mix = layer_mix(section.layers, tower.num_layers, section.name)

    def shown_frames(self, real_frames: int) -> int:
        return self.front_end.chunk_frames

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        mel = features.transpose(1, 2)[:, None]
        is_longer = None
        if self.model.config.enable_fusion:
            mel = mel.expand(-1, FUSION_VIEWS, -1, -1)
            is_longer = torch.zeros(len(mel), dtype=torch.bool, device=mel.device)
        output = self.model(mel, is_longer=is_longer)
        if self.is_pooled:
            return output.pooler_output[:, None]
        return output.last_hidden_state.mean(dim=2).transpose(1, 2)


def build(section: ClapSection, config: dict[str, Any] | None) -> AudioEncoder:
    """Random weights; sizes from `config`, the base's files, or `random_sizes`."""
    return build_wrapped(FAMILY, section, config)


def load(section: ClapSection) -> AudioEncoder:
    """The base's weights."""
    return load_wrapped(FAMILY, section)


def fingerprint(section: ClapSection) -> str:
    """Weights and options."""
    return fingerprint_wrapped(section)


def _facts(section: ClapSection, config: Any, raw: dict[str, Any], preprocessor: dict[str, Any]) -> Facts:
    """What the base's extractor says; its mel scale follows from how it treats long clips."""
    truncation = preprocessor.get("truncation", "fusion" if config.enable_fusion else "rand_trunc")
    names = {"sampling_rate": "sample_rate_hz", "max_length_s": "chunk_seconds"}
    names |= {"frequency_min": "low_hz", "frequency_max": "high_hz"}
    said = {ours: preprocessor[theirs] for theirs, ours in names.items() if theirs in preprocessor}
    return {**said, "mel_scale": "htk" if truncation == "fusion" else "slaney"}


FAMILY = Family(
    ClapAudioConfig,
    ClapAudioModel,
    ClapEncoder,
    ("clap", "clap_audio_model"),
    _facts,
    RANDOM_SIZES,
    part="audio_config",
    renames={r"^audio_model\.": ""},
    left_over=REST,
)
