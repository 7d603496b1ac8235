"""Embeddings of units: entries that the vocabulary gains, as in SpeechGPT (arXiv 2305.11000).

They are the projector's, and not rows of the language model's table: a stage trains them at the projector's rate while
the model's own words stay as they are, and a checkpoint holds them alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lalm.projectors.base import Projector, step_mask


class UnitsProjector(Projector):
    """Units `[B, T, 1]` -> an embedding each; with `markers` one entry more before and one after those of a clip."""

    def __init__(self, *, num_units: int, decoder_width: int, markers: bool):
        super().__init__()
        self.num_units, self.markers = num_units, markers
        self.embedding = nn.Embedding(num_units + (2 if markers else 0), decoder_width)

    @torch.no_grad()
    def match_scale(self, std: float) -> None:
        """Starts as long as the decoder's own embeddings are (`std` a number)."""
        nn.init.normal_(self.embedding.weight, std=std)

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        """As `Projector.forward`; whole numbers below `num_units` at real steps, of any dtype that holds them."""
        is_real = step_mask(num_steps, states.shape[1])
        units = states[..., 0].long().masked_fill(~is_real, 0)
        if not self.markers:
            return self.embedding(units) * is_real[..., None], num_steps
        num_positions = torch.where(num_steps > 0, num_steps + 2, 0)
        entries = nn.functional.pad(units, (1, 1), value=self.num_units)
        last = (num_steps + 1).clamp(max=entries.shape[1] - 1)[:, None]
        entries = entries.scatter(1, last, self.num_units + 1)
        return self.embedding(entries) * step_mask(num_positions, entries.shape[1])[..., None], num_positions
