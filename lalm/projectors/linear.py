"""One linear layer over averaged steps (MusiLingo arXiv 2309.08730, LLark 2310.07160, LTU 2305.10790, Qwen-Audio)."""

from __future__ import annotations

from torch import Tensor, nn

from lalm.projectors.base import Projector, into_windows, masked_mean, step_mask


class LinearProjector(Projector):
    """Mean of `pool_steps` real steps -> scale -> norm -> linear. A partial last window counts its real steps."""

    def __init__(self, *, encoder_width: int, decoder_width: int, pool_steps: int, input_norm: str, input_scale: float):
        super().__init__()
        self.pool_steps, self.input_scale = pool_steps, input_scale
        is_affine = input_norm == "affine"
        self.norm = nn.Identity() if input_norm == "none" else nn.LayerNorm(encoder_width, elementwise_affine=is_affine)
        self.linear = nn.Linear(encoder_width, decoder_width)

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.linear

    def match_scale(self, std: float) -> None:
        super().match_scale(std / (self.input_scale if isinstance(self.norm, nn.Identity) else 1.0))

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        windows, is_real = into_windows(states, num_steps, self.pool_steps)
        pooled = masked_mean(windows, is_real)
        num_positions = is_real.any(dim=2).sum(dim=1)
        positions = self.linear(self.norm(pooled * self.input_scale))
        return positions * step_mask(num_positions, positions.shape[1])[..., None], num_positions
