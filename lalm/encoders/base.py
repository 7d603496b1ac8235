"""What every encoder is: features of pieces of clips in, states out, real lengths beside both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lalm.audio.features import FrontEnd
from lalm.audio.lengths import Chain, Chunks, LengthRule
from lalm.encoders.units import UnitQuantiser
from lalm.errors import ModelError
from lalm.recipe.encoders import EncoderSection

LONG_SECONDS = (3600, 7200)
"""Between these two lengths the rate of steps is read off a rule, free of what is lost at a clip's edges."""


@dataclass
class EncoderOutput:
    """`states [N, T, E]` of which the first `num_steps [N]` of each piece are real."""

    states: Tensor
    num_steps: Tensor


class AudioEncoder(nn.Module):
    """Maps features `[N, M, F]` to states `[N, T, E]`.

    What a batch holds behind a piece's own frames (real ones, and the silence that the front end put there) never
    changes a state: pieces of equal length are run together and none is padded to another's length. So no mask is
    needed, and layers that would hear padding through one (the group norm of wav2vec 2.0's base models, normalisation
    over time, convolutions at the border) hear none.

    Attributes:
        layer_width: width of one layer's states.
        front_end: what makes the features.
        frame_rule: frames of one piece -> steps.
        model: the network, whose parameters are the encoder's but for the weights of `mix`.
        mix: which layers become the states.
        quantiser: turns states into units, `[N, T, 1]` of whole numbers; None where states stay states.
        common_passes: passes through the network that this process needs -> passes that all processes make. Set where
            they hold the weights together and meet in every pass, so that one with fewer lengths keeps up with the
            others; None where a process runs on its own.
    """

    layer_width: int
    front_end: FrontEnd
    frame_rule: LengthRule
    model: nn.Module
    mix: LayerMix
    quantiser: UnitQuantiser | None
    common_passes: Callable[[int], int] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.quantiser = None

    def forward(self, features: Tensor, num_frames: Tensor) -> EncoderOutput:
        """`features [N, M, F]`, `num_frames [N]` real frames of each -> states and real steps.

        Raises:
            ValueError: if `features` hold fewer frames than a piece and its padding need.
        """
        real = num_frames.tolist()
        steps = [self.frame_rule.count(frames) for frames in real]
        shown = [self.shown_frames(frames) if count else 0 for frames, count in zip(real, steps, strict=True)]
        dtype = next(self.model.parameters()).dtype
        out = dtype if self.quantiser is None else self.quantiser.unit_dtype
        states = features.new_zeros(len(real), max(steps, default=0), self.width, dtype=out)
        for length, indices, is_needed in self.passes(shown):
            if length > features.shape[2]:
                raise ValueError(f"features hold {features.shape[2]} frames, the clip and its padding need {length}")
            encoded = self.encode(features[indices, :, :length].to(dtype), [real[index] for index in indices])
            if not is_needed:
                states = states if self.quantiser is not None else states + encoded.sum() * 0.0
                continue
            if self.quantiser is not None:
                encoded = self.quantiser(encoded)
            for index, clip in zip(indices, encoded, strict=True):
                states[index, : steps[index]] = clip[: steps[index]]
        return EncoderOutput(states, torch.tensor(steps, device=features.device))

    def passes(self, lengths: list[int]) -> Iterator[tuple[int, list[int], bool]]:
        """(length, indices of the pieces that have it, whether anything of it is needed) of every pass.

        The passes that are not needed repeat one piece of the shortest length, until all processes have made as many.
        """
        groups = groups_of_equal_length(lengths)
        num_more = 0 if self.common_passes is None else self.common_passes(len(groups)) - len(groups)
        for length, indices in groups.items():
            yield length, indices, True
        for _ in range(num_more if groups else 0):
            shortest = min(groups)
            yield shortest, groups[shortest][:1], False

    def shown_frames(self, real_frames: int) -> int:
        """Frames that the network is shown of a piece with `real_frames`: these alone, or padding too."""
        return real_frames

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        """`features [n, M, F]` of pieces that are shown equally much, real frames of each -> `[n, T, E]`.

        `T` is at least the steps of the longest; what lies behind a piece's own steps is cut off by `forward`.
        """
        raise NotImplementedError

    def config_dict(self) -> dict[str, Any]:
        """The sizes that rebuild this encoder with random weights, as JSON."""
        raise NotImplementedError

    @property
    def num_layer_outputs(self) -> int:
        """Layers that a state holds side by side on its width."""
        return self.mix.num_outputs

    @property
    def width(self) -> int:
        """`E`; 1 for units."""
        return self.layer_width * self.num_layer_outputs if self.quantiser is None else 1

    @property
    def num_units(self) -> int:
        """How many units there are; 0 where states stay states."""
        return 0 if self.quantiser is None else self.quantiser.num_units

    @property
    def drops_repeats(self) -> bool:
        """Whether of equal neighbours in a clip only the first stays, when its pieces have been put together."""
        return self.quantiser is not None and self.quantiser.drops_repeats

    @property
    def piece_rule(self) -> LengthRule:
        """Samples of one piece -> its steps."""
        return Chain(rules=(self.front_end.length_rule(), self.frame_rule))

    @property
    def length_rule(self) -> LengthRule:
        """Samples of a whole clip -> its steps; long clips are cut into chunks."""
        return Chunks(size=self.front_end.chunk_samples, rule=self.piece_rule)

    @property
    def steps_per_second(self) -> float:
        """States for each second of audio, in a whole chunk."""
        seconds = self.front_end.chunk_seconds
        return self.length_rule.count(self.front_end.chunk_samples) / seconds

    @property
    def step_seconds(self) -> float:
        """Time between two steps inside a chunk; the whole chunk where that has one step however long it is."""
        short, long = (self.piece_rule.count(seconds * self.front_end.sample_rate_hz) for seconds in LONG_SECONDS)
        return (LONG_SECONDS[1] - LONG_SECONDS[0]) / (long - short) if long > short else self.front_end.chunk_seconds

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter of the network trains; the learned sum of layers may train behind a frozen network."""
        return not any(parameter.requires_grad for parameter in self.model.parameters())


class LayerMix(nn.Module):
    """Which layers of an encoder become its states: the last, some (their mean, or side by side on the width), or a
    learned weighted sum of all.

    The weights of the sum are part of the projector: a stage trains them with its learning rate, behind a frozen
    encoder too, and a checkpoint holds them.
    Source of the weighted sum: SUPERB (arXiv 2105.01051), used by SpeechVerse (arXiv 2405.08295).
    """

    def __init__(
        self,
        layers: Literal["last", "weighted"] | tuple[int, ...],
        num_layers: int,
        layers_as: Literal["mean", "separate"] = "mean",
    ):
        super().__init__()
        if isinstance(layers, tuple) and any(not 0 <= layer < num_layers for layer in layers):
            raise ValueError(f"layers {layers}: the encoder has layers 0 to {num_layers - 1}")
        self.layers = layers
        self.num_outputs = len(layers) if isinstance(layers, tuple) and layers_as == "separate" else 1
        self.weights = nn.Parameter(torch.zeros(num_layers)) if layers == "weighted" else None

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """`outputs`: the output of every layer, first to last, `[N, T, E]` each -> `[N, T, num_outputs * E]`."""
        if self.weights is not None:
            shares = self.weights.softmax(dim=0).to(outputs[0].dtype)
            return torch.einsum("l,l...->...", shares, torch.stack([*outputs]))
        if self.num_outputs > 1:
            return torch.cat([outputs[layer] for layer in self.layers], dim=-1)  # type: ignore[index]
        if isinstance(self.layers, tuple):
            return torch.stack([outputs[layer] for layer in self.layers]).mean(dim=0)
        return outputs[-1]


def layer_mix(section: EncoderSection, num_layers: int, encoder: str) -> LayerMix:
    """The mix of a recipe's `layers`. Raises `ModelError` where the encoder lacks one of them."""
    try:
        return LayerMix(section.layers, num_layers, section.layers_as)
    except ValueError as error:
        raise ModelError(f"encoders: {encoder}: {error}") from None


def groups_of_equal_length(lengths: list[int]) -> dict[int, list[int]]:
    """Length -> indices of the pieces that have it; pieces without any frame are left out."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        if length > 0:
            groups.setdefault(length, []).append(index)
    return groups
