"""Strided convolutions with gated linear units, then a residual bottleneck (BLSP, arXiv 2309.00916)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lalm.projectors.base import Projector, step_mask


class ConvProjector(Projector):
    """Each layer divides the rate by `stride`; what is not real is set to zero before every convolution."""

    def __init__(
        self,
        *,
        encoder_width: int,
        decoder_width: int,
        num_layers: int,
        kernel_size: int,
        stride: int,
        hidden_size: int | None,
        adapter_size: int | None,
    ):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        widths = [encoder_width, *[hidden_size or decoder_width] * (num_layers - 1), decoder_width]
        self.convs = nn.ModuleList(
            nn.Conv1d(before, 2 * after, kernel_size, stride=stride, padding=kernel_size // 2)
            for before, after in pairwise(widths)
        )
        self.adapter = (
            nn.Sequential(nn.Linear(decoder_width, adapter_size), nn.ReLU(), nn.Linear(adapter_size, decoder_width))
            if adapter_size
            else None
        )
        self.norm = nn.LayerNorm(decoder_width)

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.norm

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        lengths = num_steps
        for conv in self.convs:
            states = states.masked_fill(~step_mask(lengths, states.shape[1])[..., None], 0)
            states = nn.functional.glu(conv(states.transpose(1, 2)), dim=1).transpose(1, 2)
            reach = lengths + 2 * (self.kernel_size // 2) - self.kernel_size
            lengths = torch.where(lengths > 0, torch.div(reach, self.stride, rounding_mode="floor") + 1, 0)
        if self.adapter is not None:
            states = states + self.adapter(states)
        return self.norm(states) * step_mask(lengths, states.shape[1])[..., None], lengths
