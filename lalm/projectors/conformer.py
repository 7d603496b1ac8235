"""Conformer layers, then a linear layer: a position for each encoder step (SALM, arXiv 2310.09424, as NeMo ships it).

The layers are transformers' Parakeet blocks (attention with relative positions). Their batch norm is replaced by a
layer norm over channels: statistics of a padded batch would make a clip's positions depend on its neighbours.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers.models.parakeet.configuration_parakeet import ParakeetEncoderConfig
from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderBlock, ParakeetEncoderRelPositionalEncoding

from lalm.projectors.base import Projector, step_mask


class ConformerProjector(Projector):
    """Linear to the layers' width, scaled by its square root, the layers, linear to the decoder."""

    def __init__(
        self,
        *,
        encoder_width: int,
        decoder_width: int,
        num_layers: int,
        hidden_size: int,
        num_heads: int,
        kernel_size: int,
        feed_forward_factor: int,
        dropout: float,
    ):
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size {hidden_size} is not a multiple of num_heads {num_heads}")
        config = ParakeetEncoderConfig(
            hidden_size=hidden_size,
            num_attention_heads=num_heads,
            intermediate_size=feed_forward_factor * hidden_size,
            conv_kernel_size=kernel_size,
            activation_dropout=dropout,
            attention_dropout=dropout,
        )
        config._attn_implementation = "eager"  # the relative positions are an additive mask
        self.to_hidden = nn.Linear(encoder_width, hidden_size)
        self.scale = hidden_size**0.5
        self.positions = ParakeetEncoderRelPositionalEncoding(config)
        self.layers = nn.ModuleList(ParakeetEncoderBlock(config, number) for number in range(num_layers))
        for layer in self.layers:
            layer.conv.register_module("norm", _ChannelNorm(hidden_size))
        self.to_decoder = nn.Linear(hidden_size, decoder_width)

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.to_decoder

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        is_real = step_mask(num_steps, states.shape[1])
        hidden = self.to_hidden(states.masked_fill(~is_real[..., None], 0)) * self.scale
        visible = (is_real[:, :, None] & is_real[:, None, :])[:, None]
        relative = self.positions(hidden)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=visible, position_embeddings=relative)
        return self.to_decoder(hidden) * is_real[..., None], num_steps


class _ChannelNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        """`[B, channels, T]`, normalised over channels."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)
