"""The audio tower: one or several encoders over the same clips, their states aligned in time and joined on width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lalm.audio.lengths import Chain, LengthRule, Parallel, Resample
from lalm.encoders.base import AudioEncoder


class AudioTower(nn.Module):
    """Runs every encoder on its own features. Frozen encoders stay in eval mode whatever the model's mode is."""

    def __init__(self, encoders: Sequence[AudioEncoder]):
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

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
        return getattr(self.encoders[0], "num_layer_outputs", 1) if len(self.encoders) == 1 else 1

    @property
    def sample_rate_hz(self) -> int:
        """The rate at which clips are handed over; encoders of a lower rate are resampled to."""
        return max(encoder.front_end.sample_rate_hz for encoder in self.encoders)

    @property
    def length_rule(self) -> LengthRule:
        """Samples at `sample_rate_hz` -> joined steps: the longest stream counts."""
        rules = [
            _after_resampling(encoder.length_rule, self.sample_rate_hz, encoder.front_end.sample_rate_hz)
            for encoder in self.encoders
        ]
        return rules[0] if len(rules) == 1 else Parallel(rules=tuple(rules), join="max")

    def train(self, mode: bool = True) -> AudioTower:
        super().train(mode)
        for encoder in self.encoders:
            if not any(parameter.requires_grad for parameter in encoder.parameters()):
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
            return streams[0]
        length = max(states.shape[1] for states, _ in streams)
        joined = [nn.functional.pad(states, (0, 0, 0, length - states.shape[1])) for states, _ in streams]
        return torch.cat(joined, dim=-1), torch.stack([steps for _, steps in streams]).amax(dim=0)

    @staticmethod
    def _encode(encoder: AudioEncoder, features: Tensor, lengths: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        if int(counts.sum()) != len(features):
            raise ValueError(f"chunk_counts add up to {int(counts.sum())}, but there are {len(features)} chunks")
        frozen = not any(parameter.requires_grad for parameter in encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            output = encoder(features, lengths)
        steps = output.num_steps.tolist()
        clips, first = [], 0
        for count in counts.tolist():
            chunks = range(first, first + count)
            clips.append(torch.cat([output.states[i, : steps[i]] for i in chunks]))
            first += count
        num_steps = torch.tensor([len(clip) for clip in clips], device=features.device)
        return nn.utils.rnn.pad_sequence(clips, batch_first=True), num_steps

    def _one_each(self, value: Tensor | Sequence[Tensor], name: str) -> list[Tensor]:
        values = (
            [value] * (len(self.encoders) if name == "chunk_counts" else 1) if isinstance(value, Tensor) else [*value]
        )
        if len(values) != len(self.encoders):
            raise ValueError(f"{name}: {len(values)} tensors for {len(self.encoders)} encoders")
        return values


def _after_resampling(rule: LengthRule, from_hz: int, to_hz: int) -> LengthRule:
    return rule if from_hz == to_hz else Chain(rules=(Resample(from_hz=from_hz, to_hz=to_hz), rule))
