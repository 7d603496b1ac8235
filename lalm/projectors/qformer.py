"""Window-level Q-Former: learned queries read one window of encoder steps at a time (SALMONN, arXiv 2310.13289).

The transformer is the BERT-shaped Q-Former of BLIP-2 (arXiv 2301.12597) as transformers has it. A window that holds
no real step is never computed, and the filler of a last, partial window is never attended to.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from lalm.projectors.base import Projector, into_windows

QUERY_STD = 0.02
"""Standard deviation of the queries at the start, as BERT initialises embeddings."""


class QFormerProjector(Projector):
    """`queries` audio positions for each window of `window_steps` encoder steps."""

    def __init__(
        self,
        *,
        encoder_width: int,
        decoder_width: int,
        window_steps: int | None,
        queries: int,
        partial_window: str,
        num_layers: int,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        cross_attention_every: int,
        dropout: float,
    ):
        super().__init__()
        self.window_steps = window_steps
        self.keeps_partial_window = partial_window == "keep"
        self.norm = nn.LayerNorm(encoder_width)
        self.queries = nn.Parameter(torch.randn(1, queries, hidden_size) * QUERY_STD)
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=hidden_size,
                num_hidden_layers=num_layers,
                num_attention_heads=num_heads,
                intermediate_size=intermediate_size,
                encoder_hidden_size=encoder_width,
                cross_attention_frequency=cross_attention_every,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        )
        self.to_decoder = nn.Linear(hidden_size, decoder_width)

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.to_decoder

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        size = self.window_steps or states.shape[1]
        windows, is_real = into_windows(self.norm(states), num_steps, size)
        num_windows = self._num_windows(num_steps, size)
        is_used = torch.arange(windows.shape[1], device=num_steps.device) < num_windows[:, None]
        used = windows[is_used]  # [windows of the whole batch, window_steps, E]
        answers = self.qformer(
            query_embeds=self.queries.expand(len(used), -1, -1),
            encoder_hidden_states=used,
            encoder_attention_mask=is_real[is_used].long(),
        ).last_hidden_state
        answers = self.to_decoder(answers)  # [windows, queries, D]
        positions = answers.new_zeros(*is_used.shape, *answers.shape[1:])
        positions[is_used] = answers
        return positions.flatten(1, 2), num_windows * self.queries.shape[1]

    def _num_windows(self, num_steps: Tensor, size: int) -> Tensor:
        whole = torch.div(num_steps, size, rounding_mode="floor")
        if self.keeps_partial_window or self.window_steps is None:
            return torch.div(num_steps + size - 1, size, rounding_mode="floor")
        return torch.where(num_steps > 0, whole.clamp(min=1), whole)
