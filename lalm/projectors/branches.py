"""Several projectors side by side, one for each encoder or all on the joined states; joined in time or on width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lalm.projectors.base import Projector, join_in_time, step_mask


class BranchesProjector(Projector):
    """In time: the positions of each branch one behind another, as many as all have together. On width: the branches'
    positions side by side, zeros where a branch has fewer, then one linear layer; as many as the longest branch has.
    """

    def __init__(
        self,
        *,
        branches: Sequence[Projector],
        stream_widths: Sequence[int],
        decoder_width: int,
        reads: str,
        join: str,
    ):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.stream_widths, self.reads = list(stream_widths), reads
        self.reads_question = any(branch.reads_question for branch in branches)
        joined = sum(branch.output_layer.weight.shape[0] for branch in branches)
        self.to_decoder = nn.Linear(joined, decoder_width) if join == "width" else None

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.to_decoder or cast(Projector, self.branches[-1]).output_layer

    def match_scale(self, std: float) -> None:
        for branch in cast(list[Projector], self.branches):
            branch.match_scale(std if self.to_decoder is None else 1.0)
        if self.to_decoder is not None:
            super().match_scale(std)

    def forward(
        self,
        states: Tensor,
        num_steps: Tensor,
        question: Tensor | None = None,
        question_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        own = self.reads == "own"
        streams = states.split(self.stream_widths, dim=-1) if own else [states] * len(self.branches)
        parts, lengths = [], []
        for branch, stream in zip(self.branches, streams, strict=True):
            asked = (question, question_lengths) if branch.reads_question else ()
            positions, num_positions = branch(stream, num_steps, *asked)
            parts.append(positions)
            lengths.append(num_positions)
        if self.to_decoder is None:
            return join_in_time(parts, lengths)
        longest = max(part.shape[1] for part in parts)
        side_by_side = [nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts]
        num_positions = torch.stack(lengths).amax(dim=0)
        joined = self.to_decoder(torch.cat(side_by_side, dim=-1))
        return joined * step_mask(num_positions, longest)[..., None], num_positions
