"""Frame stacking and an MLP: neighbouring steps side by side, then linear layers (SLAM-LLM, arXiv 2402.08846)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lalm.projectors.base import Projector, pack_windows, unpack

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


class MlpProjector(Projector):
    """`stack_steps` encoder steps, of `layers_read` layers side by side, become one audio position.

    Early layers of a speech encoder keep what its last has let go: timbre, background (Whisper-AT, arXiv 2307.03183).
    """

    def __init__(
        self,
        *,
        encoder_width: int,
        decoder_width: int,
        stack_steps: int,
        hidden_size: int,
        num_layers: int,
        activation: str,
        normalise: bool,
        bias: bool = True,
        layers_read: int = 1,
        ends_with_mean: bool = False,
    ):
        super().__init__()
        self.num_summaries = int(ends_with_mean)
        self.stack_steps, self.num_layer_inputs = stack_steps, layers_read
        self.norm_in = nn.LayerNorm(encoder_width) if normalise else nn.Identity()
        widths = [encoder_width * layers_read * stack_steps, *[hidden_size] * (num_layers - 1), decoder_width]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(widths)):
            layers.append(nn.Linear(before, after, bias=bias))
            layers += [ACTIVATIONS[activation]()] if i < len(widths) - 2 else []
        self.layers = nn.Sequential(*layers)
        self.norm_out = nn.LayerNorm(decoder_width) if normalise else nn.Identity()

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.norm_out if isinstance(self.norm_out, nn.LayerNorm) else self.layers[-1]

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        if self.num_layer_inputs > 1:
            states = states.transpose(1, 2)  # the norm is of each layer's states alone
        windows = pack_windows(self.norm_in(states).flatten(2), num_steps, self.stack_steps)
        vectors = self.norm_out(self.layers(windows.flatten(1)))
        num_positions = torch.div(num_steps + self.stack_steps - 1, self.stack_steps, rounding_mode="floor")
        positions = unpack(vectors, num_positions, max(1, -(-states.shape[1] // self.stack_steps)))
        if not self.num_summaries:
            return positions, num_positions
        clips = torch.arange(len(num_steps), device=vectors.device)
        sums = vectors.new_zeros(len(clips), vectors.shape[-1])
        sums = sums.index_add(0, clips.repeat_interleave(num_positions), vectors)  # in the same order beside any clip
        positions = nn.functional.pad(positions, (0, 0, 0, 1))
        return positions.index_put((clips, num_positions), sums / num_positions[:, None]), num_positions + 1
