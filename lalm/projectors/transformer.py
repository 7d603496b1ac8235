"""Transformer layers over the encoder's steps, then a linear layer (Audio Flamingo, arXiv 2402.01831)."""

from __future__ import annotations

from torch import Tensor, nn

from lalm.projectors.base import Projector, step_mask


class TransformerProjector(Projector):
    """A position for each step. The layers know no order of the steps but what the encoder put into them."""

    def __init__(
        self,
        *,
        encoder_width: int,
        decoder_width: int,
        num_layers: int,
        hidden_size: int | None,
        num_heads: int,
        intermediate_size: int,
        dropout: float,
    ):
        super().__init__()
        width = hidden_size or encoder_width
        if width % num_heads:
            raise ValueError(f"the layers' width {width} is not a multiple of num_heads {num_heads}")
        self.to_hidden = nn.Linear(encoder_width, width) if hidden_size else nn.Identity()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, num_heads, intermediate_size, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.to_decoder = nn.Linear(width, decoder_width)

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.to_decoder

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        is_real = step_mask(num_steps, states.shape[1])
        hidden = self.to_hidden(states.masked_fill(~is_real[..., None], 0))
        # A clip without any step sees its filler, so that no softmax is empty; its positions count nothing.
        hidden_keys = ~is_real & (num_steps > 0)[:, None]
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=hidden_keys)
        return self.to_decoder(self.norm(hidden)) * is_real[..., None], num_steps
