"""Time and layer-wise transformer (TLTR) of Whisper-AT (arXiv 2307.03183), as LTU-AS (arXiv 2309.14405) joins it.

Every layer of the encoder is a sequence of its own. Each is averaged to a low rate; one transformer layer, the same for
all, goes along time, another goes across the encoder's layers at each time; their mean is projected.
"""

from __future__ import annotations

from torch import Tensor, nn

from lalm.projectors.base import Projector, into_windows, masked_mean, step_mask


class TltrProjector(Projector):
    """`states [B, layers_read, T, E]` -> a position for every `pool_steps` steps."""

    def __init__(
        self,
        *,
        encoder_width: int,
        decoder_width: int,
        layers_read: int,
        pool_steps: int,
        num_heads: int,
        feed_forward_factor: int,
        dropout: float,
    ):
        super().__init__()
        if encoder_width % num_heads:
            raise ValueError(f"an encoder of width {encoder_width} cannot be read by num_heads {num_heads}")
        self.num_layer_inputs, self.pool_steps = layers_read, pool_steps
        self.along_time, self.across_layers = (
            nn.TransformerEncoderLayer(
                encoder_width,
                num_heads,
                feed_forward_factor * encoder_width,
                dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(2)
        )
        self.linear = nn.Linear(encoder_width, decoder_width)

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.linear

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        batch, layers = states.shape[:2]
        windows, is_filled = into_windows(states.flatten(0, 1), num_steps.repeat_interleave(layers), self.pool_steps)
        pooled = masked_mean(windows, is_filled)  # [B * layers, W, E]
        num_positions = is_filled.view(batch, layers, *is_filled.shape[1:])[:, 0].any(dim=2).sum(dim=1)
        is_real = step_mask(num_positions, pooled.shape[1])
        # A clip without any step sees its filler, so that no softmax is empty; its positions count nothing.
        hidden_keys = ~is_real & (num_positions > 0)[:, None]
        in_time = self.along_time(pooled, src_key_padding_mask=hidden_keys.repeat_interleave(layers, dim=0))
        by_time = in_time.unflatten(0, (batch, layers)).transpose(1, 2).flatten(0, 1)  # [B * W, layers, E]
        mixed = self.across_layers(by_time).mean(dim=1).unflatten(0, (batch, -1))
        return self.linear(mixed) * is_real[..., None], num_positions
