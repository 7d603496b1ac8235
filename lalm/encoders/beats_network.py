"""BEATs in plain PyTorch: patches of a filterbank through a transformer with gated relative positions.

Source: "BEATs: Audio Pre-Training with Acoustic Tokenizers" (arXiv 2212.09058); gated relative position bias from
WavLM (arXiv 2110.13900), deep norm from DeepNet (arXiv 2203.00555). Parameter names are those of the published
checkpoints, with one exception: the position bias is one table, not one for each layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from lalm.errors import ModelError

PATCH_FRAMES = 16
"""Frames, and mel bins, of one patch in every published checkpoint."""
NO_LABEL_HEAD = (
    "encoders: beats: this checkpoint was not fine-tuned, it has no label head. Take a fine-tuned one "
    "(BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt and its like) to name classes."
)


@dataclass(frozen=True)
class BeatsSizes:
    """The keys of a checkpoint's `cfg` that decide the network, with the names and defaults of the published code."""

    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    embed_dim: int = 512
    input_patch_size: int = -1
    conv_bias: bool = False
    conv_pos: int = 128
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 1280
    relative_position_embedding: bool = False
    gru_rel_pos: bool = False
    deep_norm: bool = False
    layer_norm_first: bool = False
    activation_fn: str = "gelu"
    finetuned_model: bool = False
    predictor_class: int = 527

    @classmethod
    def from_cfg(cls, cfg: dict[str, Any]) -> BeatsSizes:
        """The sizes in a published `cfg`; keys that only matter in pre-training are passed over.

        Raises:
            ModelError: if the network is of a kind that no published checkpoint has.
        """
        sizes = cls(**{field.name: cfg[field.name] for field in fields(cls) if field.name in cfg})
        if sizes.input_patch_size != PATCH_FRAMES or sizes.activation_fn != "gelu":
            raise ModelError(
                f"BEATs: input_patch_size {sizes.input_patch_size} and activation_fn {sizes.activation_fn!r} are not "
                f"supported; published checkpoints have {PATCH_FRAMES} and 'gelu'."
            )
        return sizes


BASE = BeatsSizes(
    input_patch_size=PATCH_FRAMES, max_distance=800, relative_position_embedding=True, gru_rel_pos=True, deep_norm=True
)
"""BEATs_iter1, iter2 and iter3: 90 million parameters."""


class BeatsNetwork(nn.Module):
    """Normalised filterbank `[N, F, 128]` -> states `[N, P, E]`, `P = 8 * (F // 16)`: time first, then frequency."""

    def __init__(self, sizes: BeatsSizes):
        super().__init__()
        width = sizes.encoder_embed_dim
        patch = sizes.input_patch_size
        self.patch_embedding = nn.Conv2d(1, sizes.embed_dim, patch, stride=patch, bias=sizes.conv_bias)
        self.layer_norm = nn.LayerNorm(sizes.embed_dim)
        self.post_extract_proj = nn.Linear(sizes.embed_dim, width) if sizes.embed_dim != width else None
        self.encoder = _Encoder(sizes)
        self.predictor = nn.Linear(width, sizes.predictor_class) if sizes.finetuned_model else None

    def forward(self, filterbank: Tensor, is_padding: Tensor | None = None) -> list[Tensor]:
        """The output of every layer, `[N, P, E]` each. `is_padding [N, P]` marks patches that nobody may look at."""
        patches = self.patch_embedding(filterbank[:, None]).flatten(2).transpose(1, 2)
        patches = self.layer_norm(patches)
        if self.post_extract_proj is not None:
            patches = self.post_extract_proj(patches)
        return self.encoder(patches, is_padding)

    def classify(self, states: Tensor) -> Tensor:
        """Probabilities `[N, classes]` of a fine-tuned checkpoint from the last layer's real states `[N, P, E]`.

        Raises:
            ModelError: if the checkpoint was not fine-tuned.
        """
        if self.predictor is None:
            raise ModelError(NO_LABEL_HEAD)
        return self.predictor(states).mean(dim=1).sigmoid()


class _Encoder(nn.Module):
    def __init__(self, sizes: BeatsSizes):
        super().__init__()
        width = sizes.encoder_embed_dim
        self.heads, self.norm_first = sizes.encoder_attention_heads, sizes.layer_norm_first
        self.num_buckets, self.max_distance = sizes.num_buckets, sizes.max_distance
        self.pos_conv = nn.ModuleList([_PositionConv(width, sizes.conv_pos, sizes.conv_pos_groups)])
        self.relative_attention_bias = (
            nn.Embedding(sizes.num_buckets, self.heads) if sizes.relative_position_embedding else None
        )
        self.layers = nn.ModuleList([_Layer(sizes) for _ in range(sizes.encoder_layers)])
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, states: Tensor, is_padding: Tensor | None) -> list[Tensor]:
        if is_padding is not None:
            states = states.masked_fill(is_padding[..., None], 0)
        states = states + self.pos_conv[0](states)
        if not self.norm_first:
            states = self.layer_norm(states)
        bias = self._position_bias(states.shape[1])
        outputs = []
        for layer in self.layers:
            states = layer(states, bias, is_padding)
            outputs.append(states)
        if self.norm_first:
            outputs[-1] = self.layer_norm(outputs[-1])
        return outputs

    def _position_bias(self, length: int) -> Tensor | None:
        """`[H, P, P]` from T5-style buckets: exact when near, logarithmic when far."""
        if self.relative_attention_bias is None:
            return None
        order = torch.arange(length, device=self.relative_attention_bias.weight.device)
        distance = order[None, :] - order[:, None]
        half = self.num_buckets // 2
        near = half // 2
        far = distance.abs()
        share = torch.log(far.clamp(min=1).float() / near) / math.log(self.max_distance / near)
        logarithmic = (near + (share * (half - near)).long()).clamp(max=half - 1)
        buckets = torch.where(far < near, far, logarithmic) + (distance > 0) * half
        return self.relative_attention_bias(buckets).permute(2, 0, 1)


class _PositionConv(nn.Module):
    """Convolutional positions with weight norm over the kernel axis; an even kernel's last step is dropped."""

    def __init__(self, width: int, kernel: int, groups: int):
        super().__init__()
        self.kernel, self.groups = kernel, groups
        weight = torch.randn(width, width // groups, kernel) * math.sqrt(4 / (kernel * width))
        self.weight_v = nn.Parameter(weight)
        self.weight_g = nn.Parameter(weight.norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor) -> Tensor:
        weight = self.weight_g * self.weight_v / self.weight_v.norm(dim=(0, 1), keepdim=True)
        out = nn.functional.conv1d(
            states.transpose(1, 2), weight, self.bias, padding=self.kernel // 2, groups=self.groups
        )
        return nn.functional.gelu(out[..., : states.shape[1]]).transpose(1, 2)


class _Layer(nn.Module):
    def __init__(self, sizes: BeatsSizes):
        super().__init__()
        width = sizes.encoder_embed_dim
        self.norm_first = sizes.layer_norm_first
        self.residual = (2 * sizes.encoder_layers) ** 0.25 if sizes.deep_norm else 1.0
        self.self_attn = _Attention(width, sizes.encoder_attention_heads, is_gated=sizes.gru_rel_pos)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, sizes.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(sizes.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, states: Tensor, bias: Tensor | None, is_padding: Tensor | None) -> Tensor:
        if self.norm_first:
            states = states + self.self_attn(self.self_attn_layer_norm(states), bias, is_padding)
            return states + self._feed_forward(self.final_layer_norm(states))
        states = self.self_attn_layer_norm(states * self.residual + self.self_attn(states, bias, is_padding))
        return self.final_layer_norm(states * self.residual + self._feed_forward(states))

    def _feed_forward(self, states: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(states)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, *, is_gated: bool):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.grep_linear = nn.Linear(width // heads, 8) if is_gated else None
        self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1)) if is_gated else None

    def forward(self, states: Tensor, bias: Tensor | None, is_padding: Tensor | None) -> Tensor:
        query, key, value = (
            projection(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mask = None if bias is None else bias[None]
        if mask is not None and self.grep_linear is not None:
            mask = self._gate(query) * mask
        if is_padding is not None:
            hidden = torch.zeros_like(is_padding, dtype=query.dtype).masked_fill_(is_padding, -torch.inf)
            mask = hidden[:, None, None] if mask is None else mask + hidden[:, None, None]
        out = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=None if mask is None else mask.to(query.dtype)
        )
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _gate(self, query: Tensor) -> Tensor:
        """`[N, H, P, 1]` from the unscaled query: how much each position listens to the position bias."""
        first, second = self.grep_linear(query).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        return first * (second * self.grep_a - 1.0) + 2.0
