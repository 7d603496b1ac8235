"""Mapping network: one pooled vector becomes a prefix for the decoder (Pengi, arXiv 2305.11834)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lalm.projectors.base import Projector, step_mask


class MapperProjector(Projector):
    """Mean over real steps, unit length, a linear layer to `prefix_length` vectors, `prefix_length` learned constants
    behind them, a transformer over both; what stands at the constants is the prefix."""

    def __init__(
        self,
        *,
        encoder_width: int,
        decoder_width: int,
        prefix_length: int,
        num_layers: int,
        num_heads: int,
        feed_forward_factor: int,
    ):
        super().__init__()
        self.prefix_length = prefix_length
        self.to_prefix = nn.Linear(encoder_width, prefix_length * decoder_width)
        self.constants = nn.Parameter(torch.randn(prefix_length, decoder_width))
        layer = nn.TransformerEncoderLayer(
            decoder_width,
            num_heads,
            feed_forward_factor * decoder_width,
            dropout=0.0,
            activation="relu",
            batch_first=True,
            norm_first=True,
        )
        self.transformer = nn.TransformerEncoder(
            layer, num_layers, norm=nn.LayerNorm(decoder_width), enable_nested_tensor=False
        )

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.transformer.norm

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        is_real = step_mask(num_steps, states.shape[1])
        total = states.masked_fill(~is_real[..., None], 0).sum(dim=1)
        pooled = nn.functional.normalize(total / num_steps.clamp(min=1)[:, None].to(total.dtype), dim=-1)
        prefix = self.to_prefix(pooled).unflatten(-1, (self.prefix_length, -1))
        both = torch.cat([prefix, self.constants.expand(len(states), -1, -1)], dim=1)
        positions = self.transformer(both)[:, self.prefix_length :]
        has_audio = num_steps > 0
        return positions * has_audio[:, None, None], self.prefix_length * has_audio
