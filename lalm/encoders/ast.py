"""AST (arXiv 2104.01778): a vision transformer over 16x16 patches of a filterbank, overlapping by 6.

The layers are transformers' own; the embedding is ours, since theirs takes 1024 frames only. At real length a clip
takes the first columns of the learned positions. The two summary tokens take part and are left out of the states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import ASTConfig, ASTModel, PreTrainedModel

from lalm.audio.features import AstFrontEnd
from lalm.audio.lengths import Chain, Conv, LengthRule, Scale
from lalm.encoders.base import AudioEncoder, layer_mix
from lalm.encoders.pretrained import Facts, Family, PretrainedEncoder, build_wrapped, fingerprint_wrapped, load_wrapped
from lalm.recipe.encoders import AstSection

RANDOM_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_mel_bins": 128,
    "max_length": 1024,
}
"""Sizes of a `base: random` encoder, for tests."""
SUMMARY_TOKENS = 2
"""The class token and the distillation token, in front of the patches."""
FRAME_SECONDS = 0.01
HEADS = r"classifier\."


class AstEncoder(PretrainedEncoder):
    """Filterbank `[N, M, F]` -> states `[N, T, hidden_size]`: columns of patches that lie wholly inside the clip."""

    front_end: AstFrontEnd

    def __init__(self, section: AstSection, model: PreTrainedModel, facts: Facts):
        super().__init__(model, facts)
        config = model.config
        self.width = config.hidden_size
        self.keeps_frequency = section.frequency == "keep"
        self.rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        self.front_end = AstFrontEnd(
            padding=section.padding,
            chunk_seconds=config.max_length * FRAME_SECONDS,
            num_mel_bins=config.num_mel_bins,
            chunk_frames=config.max_length,
            **facts,
        )
        columns: LengthRule = Conv(kernel=config.patch_size, stride=config.time_stride)
        self.frame_rule = Chain(rules=(columns, Scale(times=self.rows))) if self.keeps_frequency else columns
        self.mix = layer_mix(section.layers, config.num_hidden_layers, section.name)

    def shown_frames(self, real_frames: int) -> int:
        return self.front_end.chunk_frames if self.front_end.padding == "full" else real_frames

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        embeddings, model = self.model.embeddings, self.model
        patches = embeddings.patch_embeddings.projection(features[:, None])  # [n, E, rows, columns]
        positions = embeddings.position_embeddings
        grid = positions[:, SUMMARY_TOKENS:].unflatten(1, (self.rows, -1))[:, :, : patches.shape[3]]
        patches = patches.permute(0, 2, 3, 1) + grid
        summary = (
            torch.cat([embeddings.cls_token, embeddings.distillation_token], dim=1) + positions[:, :SUMMARY_TOKENS]
        )
        hidden = torch.cat([summary.expand(len(features), -1, -1), patches.flatten(1, 2)], dim=1)
        hidden = embeddings.dropout(hidden)
        outputs = []
        for layer in model.layers:
            hidden = layer(hidden, None)
            outputs.append(hidden)
        outputs[-1] = model.layernorm(outputs[-1])
        mixed = self.mix(outputs)[:, SUMMARY_TOKENS:].unflatten(1, (self.rows, -1))
        return mixed.transpose(1, 2).flatten(1, 2) if self.keeps_frequency else mixed.mean(dim=1)


def build(section: AstSection, config: dict[str, Any] | None) -> AudioEncoder:
    """Random weights; sizes from `config`, the base's files, or `random_sizes`."""
    return build_wrapped(FAMILY, section, config)


def load(section: AstSection) -> AudioEncoder:
    """The base's weights."""
    return load_wrapped(FAMILY, section)


def fingerprint(section: AstSection) -> str:
    """Weights and options."""
    return fingerprint_wrapped(section)


def _facts(section: AstSection, config: Any, raw: dict[str, Any], preprocessor: dict[str, Any]) -> Facts:
    return {key: preprocessor[key] for key in ("mean", "std") if key in preprocessor}


FAMILY = Family(
    ASTConfig,
    ASTModel,
    AstEncoder,
    ("audio-spectrogram-transformer",),
    _facts,
    RANDOM_SIZES,
    renames={r"^audio_spectrogram_transformer\.": ""},
    left_over=HEADS,
)
