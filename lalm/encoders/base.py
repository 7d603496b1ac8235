"""What every encoder is: features of pieces of clips in, states out, real lengths beside both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lalm.audio.features import FrontEnd
from lalm.audio.lengths import Chain, Chunks, LengthRule


@dataclass
class EncoderOutput:
    """`states [N, T, E]` of which the first `num_steps [N]` of each piece are real."""

    states: Tensor
    num_steps: Tensor


class AudioEncoder(nn.Module):
    """Maps features `[N, M, F]` to states `[N, T, E]`.

    What a batch holds behind a piece's own frames (real ones, and the silence that the front end put there) never
    changes a state: pieces of equal length are run together and none is padded to another's length.

    Attributes:
        width: `E`.
        front_end: what makes the features.
        frame_rule: frames of one piece -> steps.
    """

    width: int
    front_end: FrontEnd
    frame_rule: LengthRule

    def forward(self, features: Tensor, num_frames: Tensor) -> EncoderOutput:
        """`features [N, M, F]`, `num_frames [N]` real frames of each -> states and real steps."""
        raise NotImplementedError

    def config_dict(self) -> dict[str, Any]:
        """The sizes that rebuild this encoder with random weights, as JSON."""
        raise NotImplementedError

    @property
    def length_rule(self) -> LengthRule:
        """Samples of a whole clip -> its steps; long clips are cut into chunks."""
        piece = Chain(rules=(self.front_end.length_rule(), self.frame_rule))
        return Chunks(size=self.front_end.chunk_samples, rule=piece)

    @property
    def steps_per_second(self) -> float:
        """States for each second of audio."""
        seconds = self.front_end.chunk_seconds
        return self.length_rule.count(self.front_end.chunk_samples) / seconds


class LayerMix(nn.Module):
    """Which layers of an encoder become its states: the last, the mean of some, or a learned weighted sum of all.

    Source of the weighted sum: SUPERB (arXiv 2105.01051), used by SpeechVerse (arXiv 2405.08295).
    """

    def __init__(self, layers: Literal["last", "weighted"] | tuple[int, ...], num_layers: int):
        super().__init__()
        if isinstance(layers, tuple) and any(not 0 <= layer < num_layers for layer in layers):
            raise ValueError(f"layers {layers}: the encoder has layers 0 to {num_layers - 1}")
        self.layers = layers
        self.weights = nn.Parameter(torch.zeros(num_layers)) if layers == "weighted" else None

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """`outputs`: the output of every layer, first to last, `[N, T, E]` each -> `[N, T, E]`."""
        if self.weights is not None:
            shares = self.weights.softmax(dim=0).to(outputs[0].dtype)
            return torch.einsum("l,l...->...", shares, torch.stack(outputs))
        if isinstance(self.layers, tuple):
            return torch.stack([outputs[layer] for layer in self.layers]).mean(dim=0)
        return outputs[-1]


def groups_of_equal_length(lengths: list[int]) -> dict[int, list[int]]:
    """Length -> indices of the pieces that have it; pieces without any frame are left out."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        if length > 0:
            groups.setdefault(length, []).append(index)
    return groups
