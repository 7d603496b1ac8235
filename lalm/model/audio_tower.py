"""The audio tower: one or several encoders over the same clips, and how their states become one sequence.

In width the encoders are aligned in time: at each step of the reference encoder stand the states of all that are
nearest to it, wherever each encoder's chunks begin. In time they follow one another, each in slots of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lalm.audio.lengths import Chain, LengthRule, Parallel, Resample
from lalm.encoders.base import AudioEncoder
from lalm.encoders.units import first_of_runs
from lalm.errors import ModelError
from lalm.recipe.encoders import JoinSection


@dataclass(frozen=True)
class Stream:
    """One encoder's states of some clips.

    Attributes:
        states: `[clips, T, E]`, zeros behind the real steps.
        num_steps: `[clips]`.
        seconds: `[clips, T]`, the middle of each real step, counted from the clip's start.
    """

    states: Tensor
    num_steps: Tensor
    seconds: Tensor


class AudioTower(nn.Module):
    """Runs every encoder on its own features. Frozen encoders stay in eval mode whatever the model's mode is.

    Args:
        names: what the recipe calls each encoder, for `join.rate`.

    Raises:
        ModelError: if `join.rate` names no encoder of the tower, or two.
    """

    def __init__(
        self, encoders: Sequence[AudioEncoder], names: Sequence[str] = (), join: JoinSection | None = None
    ) -> None:
        super().__init__()
        self.encoders: Any = nn.ModuleList(encoders)
        self.join = join or JoinSection()
        self.reference = self._find_reference(list(names))

    @property
    def width(self) -> int:
        """Width `E` of the joined states."""
        return sum(encoder.width for encoder in self.encoders)

    @property
    def stream_widths(self) -> list[int]:
        """Width of each encoder's part of the joined states."""
        return [cast(AudioEncoder, encoder).width for encoder in self.encoders]

    @property
    def num_layer_outputs(self) -> int:
        """Layers of one encoder that its states hold side by side on the width, where the encoder gives several."""
        return cast(AudioEncoder, self.encoders[0]).num_layer_outputs if len(self.encoders) == 1 else 1

    @property
    def sample_rate_hz(self) -> int:
        """The rate at which clips are handed over; encoders of a lower rate are resampled to."""
        return max(encoder.front_end.sample_rate_hz for encoder in self.encoders)

    @property
    def num_units(self) -> int:
        """How many units the encoder has in place of states; 0 for states."""
        return cast(AudioEncoder, self.encoders[0]).num_units if len(self.encoders) == 1 else 0

    @property
    def drops_repeats(self) -> bool:
        """Whether the steps of a clip follow from what is heard: repeated units are left out."""
        return any(cast(AudioEncoder, encoder).drops_repeats for encoder in self.encoders)

    @property
    def length_rule(self) -> LengthRule:
        """Samples at `sample_rate_hz` -> joined steps; with `drops_repeats` the most that there can be."""
        rules = [
            _after_resampling(encoder.length_rule, self.sample_rate_hz, encoder.front_end.sample_rate_hz)
            for encoder in self.encoders
        ]
        if len(rules) == 1:
            return rules[0]
        if self.join.axis == "time":
            return Parallel(rules=tuple(rules), join="sum")
        return Parallel(rules=tuple(rules), join="max") if self.reference is None else rules[self.reference]

    def train(self, mode: bool = True) -> AudioTower:
        super().train(mode)
        for encoder in self.encoders:
            if encoder.is_frozen:
                encoder.eval()
        return self

    def forward(
        self,
        input_features: Tensor | Sequence[Tensor],
        feature_lengths: Tensor | Sequence[Tensor],
        chunk_counts: Tensor | Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Each argument is one tensor, or one for each encoder.

        `input_features [N, M, F]`, `feature_lengths [N]` (real frames), `chunk_counts [clips]` (chunks of each clip, in
        order) -> (`states [clips, T, E]` with zeros behind the real steps, `num_steps [clips]`).
        """
        streams = [
            self._encode(encoder, features, lengths, counts)
            for encoder, features, lengths, counts in zip(
                self.encoders,
                self._one_each(input_features, "input_features"),
                self._one_each(feature_lengths, "feature_lengths"),
                self._one_each(chunk_counts, "chunk_counts"),
                strict=True,
            )
        ]
        if len(streams) == 1:
            return streams[0].states, streams[0].num_steps
        if self.join.axis == "time":
            return _one_after_another(streams)
        if self.reference is None:
            return _step_beside_step(streams)
        reference = streams[self.reference]
        aligned = [stream.states if stream is reference else _nearest(stream, reference) for stream in streams]
        return torch.cat(aligned, dim=-1), reference.num_steps

    @staticmethod
    def _encode(encoder: AudioEncoder, features: Tensor, lengths: Tensor, counts: Tensor) -> Stream:
        if int(counts.sum()) != len(features):
            raise ValueError(f"chunk_counts add up to {int(counts.sum())}, but there are {len(features)} chunks")
        is_trained = any(parameter.requires_grad for parameter in encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and is_trained):
            output = encoder(features, lengths)
        steps = output.num_steps.tolist()
        clips, seconds, first = [], [], 0
        for count in counts.tolist():
            chunks = range(first, first + count)
            clip = torch.cat([output.states[i, : steps[i]] for i in chunks])
            times = torch.cat([_step_seconds(encoder, i - first, steps[i]) for i in chunks])
            if encoder.drops_repeats:  # over the whole clip, so that where it was cut makes no difference
                kept = first_of_runs(clip)
                clip, times = clip[kept], times[kept.to(times.device)]
            clips.append(clip)
            seconds.append(times)
            first += count
        num_steps = torch.tensor([len(clip) for clip in clips], device=features.device)
        pad = nn.utils.rnn.pad_sequence
        padded_times = pad(seconds, batch_first=True, padding_value=torch.inf).to(features.device)
        return Stream(pad(clips, batch_first=True), num_steps, padded_times)

    def _find_reference(self, names: list[str]) -> int | None:
        """The encoder whose steps the joined states have; None where each counts for itself."""
        rate = self.join.rate
        if rate == "each":
            return None
        if rate == "finest":
            seconds = [encoder.step_seconds for encoder in self.encoders]
            return seconds.index(min(seconds))
        if names.count(rate) != 1:
            raise ModelError(
                f"join.rate: {rate!r} names {names.count(rate)} of the encoders ({', '.join(names)}). Give 'finest', "
                "'each', or the name of one encoder."
            )
        return names.index(rate)

    def _one_each(self, value: Tensor | Sequence[Tensor], name: str) -> list[Tensor]:
        values = (
            [value] * (len(self.encoders) if name == "chunk_counts" else 1) if isinstance(value, Tensor) else [*value]
        )
        if len(values) != len(self.encoders):
            raise ValueError(f"{name}: {len(values)} tensors for {len(self.encoders)} encoders")
        return values


def _step_seconds(encoder: AudioEncoder, chunk: int, steps: int) -> Tensor:
    """The middle of each step of a clip's chunk number `chunk`, `[steps]`."""
    start = chunk * encoder.front_end.chunk_samples / encoder.front_end.sample_rate_hz
    return start + (torch.arange(steps, dtype=torch.float64) + 0.5) * encoder.step_seconds


def _nearest(stream: Stream, reference: Stream) -> Tensor:
    """`stream`'s states at the steps of `reference`, `[clips, T of the reference, E]`; zeros where it has none."""
    joined = stream.states.new_zeros(*reference.states.shape[:2], stream.states.shape[2])
    pairs = zip(stream.num_steps.tolist(), reference.num_steps.tolist(), strict=True)
    for clip, (steps, wanted) in enumerate(pairs):
        if steps and wanted:
            borders = (stream.seconds[clip, 1:steps] + stream.seconds[clip, : steps - 1]) / 2
            joined[clip, :wanted] = stream.states[clip, torch.bucketize(reference.seconds[clip, :wanted], borders)]
    return joined


def _step_beside_step(streams: Sequence[Stream]) -> tuple[Tensor, Tensor]:
    length = max(stream.states.shape[1] for stream in streams)
    padded = [nn.functional.pad(stream.states, (0, 0, 0, length - stream.states.shape[1])) for stream in streams]
    return torch.cat(padded, dim=-1), torch.stack([stream.num_steps for stream in streams]).amax(dim=0)


def _one_after_another(streams: Sequence[Stream]) -> tuple[Tensor, Tensor]:
    """All steps of the first encoder, then of the next; each encoder's states in its own slots of the width."""
    before, width = 0, sum(stream.states.shape[2] for stream in streams)
    slotted = []
    for stream in streams:
        own = stream.states.shape[2]
        slotted.append(nn.functional.pad(stream.states, (before, width - before - own)))
        before += own
    num_steps = torch.stack([stream.num_steps for stream in streams])
    clips = [
        torch.cat([states[clip, :steps] for states, steps in zip(slotted, num_steps[:, clip].tolist(), strict=True)])
        for clip in range(num_steps.shape[1])
    ]
    return nn.utils.rnn.pad_sequence(clips, batch_first=True), num_steps.sum(dim=0)


def _after_resampling(rule: LengthRule, from_hz: int, to_hz: int) -> LengthRule:
    return rule if from_hz == to_hz else Chain(rules=(Resample(from_hz=from_hz, to_hz=to_hz), rule))
