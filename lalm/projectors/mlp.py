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
    Mean and deviation over time (`ends_with="statistics"`) tell clips apart as a whole, as x-vectors do with speakers
    (Snyder et al., ICASSP 2018): one linear layer on them knows far fewer clips by heart than one on each window does.
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
        ends_with: str = "nothing",
    ):
        super().__init__()
        self.num_summaries, self.summary_is_learned = int(ends_with != "nothing"), ends_with == "statistics"
        self.stack_steps, self.num_layer_inputs = stack_steps, layers_read
        self.norm_in = nn.LayerNorm(encoder_width) if normalise else nn.Identity()
        widths = [encoder_width * layers_read * stack_steps, *[hidden_size] * (num_layers - 1), decoder_width]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(widths)):
            layers.append(nn.Linear(before, after, bias=bias))
            layers += [ACTIVATIONS[activation]()] if i < len(widths) - 2 else []
        self.layers = nn.Sequential(*layers)
        self.norm_out = nn.LayerNorm(decoder_width) if normalise else nn.Identity()
        if self.summary_is_learned:
            self.summary_layer = nn.Linear(2 * encoder_width * layers_read, decoder_width, bias=bias)
            self.norm_summary = nn.LayerNorm(decoder_width) if normalise else nn.Identity()

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.norm_out if isinstance(self.norm_out, nn.LayerNorm) else self.layers[-1]

    @torch.no_grad()
    def match_scale(self, std: float) -> None:
        super().match_scale(std)
        if self.summary_is_learned and isinstance(self.norm_summary, nn.LayerNorm):
            self.norm_summary.weight.fill_(std)
        elif self.summary_is_learned:
            self.summary_layer.weight.mul_(std * 3**0.5)

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
        if self.summary_is_learned:
            summaries = self.norm_summary(self.summary_layer(_statistics(windows, num_steps, num_positions)))
        else:
            summaries = _sums(vectors, num_positions) / num_positions[:, None]
        positions = nn.functional.pad(positions, (0, 0, 0, 1))
        return positions.index_put((clips, num_positions), summaries), num_positions + 1


def _sums(rows: Tensor, counts: Tensor) -> Tensor:
    """`rows [N, D]`, of which the first `counts[0]` are the first clip's, and so on -> their sums `[clips, D]`."""
    clips = torch.arange(len(counts), device=rows.device).repeat_interleave(counts)
    return rows.new_zeros(len(counts), rows.shape[-1]).index_add(0, clips, rows)  # in the same order beside any clip


def _statistics(windows: Tensor, num_steps: Tensor, num_windows: Tensor) -> Tensor:
    """Mean and deviation of each clip's steps: `windows [N, size, E]`, zeros behind the last step -> `[clips, 2E]`."""
    dtype, windows, steps = windows.dtype, windows.float(), num_steps[:, None]
    mean = _sums(windows.sum(dim=1), num_windows) / steps
    square = _sums(windows.square().sum(dim=1), num_windows) / steps
    deviation = (square - mean.square()).clamp(min=0).add(1e-5).sqrt()
    return torch.cat([mean, deviation], dim=1).to(dtype)
