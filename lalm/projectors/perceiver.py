"""Perceiver resampler: learned latents read the clip and themselves, layer after layer (Flamingo, arXiv 2204.14198)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lalm.projectors.base import Projector, step_mask


class PerceiverProjector(Projector):
    """Any clip becomes `latents` audio positions; keys and values are the clip's steps and the latents together."""

    def __init__(
        self,
        *,
        encoder_width: int,
        decoder_width: int,
        latents: int,
        num_layers: int,
        hidden_size: int,
        num_heads: int,
        feed_forward_factor: int,
    ):
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size {hidden_size} is not a multiple of num_heads {num_heads}")
        self.latents = nn.Parameter(torch.randn(latents, hidden_size) * 0.02)
        self.to_hidden = nn.Linear(encoder_width, hidden_size)
        self.layers = nn.ModuleList(_Layer(hidden_size, num_heads, feed_forward_factor) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.to_decoder = nn.Linear(hidden_size, decoder_width)

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.to_decoder

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        is_real = step_mask(num_steps, states.shape[1])
        states = self.to_hidden(states.masked_fill(~is_real[..., None], 0))
        latents = self.latents.expand(len(states), -1, -1)
        visible = nn.functional.pad(is_real, (0, latents.shape[1]), value=True)
        for layer in self.layers:
            latents = layer(latents, states, visible)
        num_positions = torch.full_like(num_steps, latents.shape[1]) * (num_steps > 0)
        positions = self.to_decoder(self.norm(latents))
        return positions * (num_steps > 0)[:, None, None], num_positions


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, factor: int):
        super().__init__()
        self.heads = heads
        self.norm_states, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key_value = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, factor * width, bias=False),
            nn.GELU(),
            nn.Linear(factor * width, width, bias=False),
        )

    def forward(self, latents: Tensor, states: Tensor, visible: Tensor) -> Tensor:
        latents_in = self.norm_latents(latents)
        context = torch.cat([self.norm_states(states), latents_in], dim=1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_query(latents_in), *self.to_key_value(context).chunk(2, dim=-1))
        )
        read = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None, None])
        latents = latents + self.to_out(read.transpose(1, 2).flatten(2))
        return latents + self.feed_forward(latents)
