"""Window-level Q-Former: learned queries read one window of encoder steps at a time (SALMONN, arXiv 2310.13289).

The transformer is the BERT-shaped Q-Former of BLIP-2 (arXiv 2301.12597) as transformers has it. A window that holds
no real step is never computed, and the filler of a last, partial window is attended to only where the recipe asks for
it (`filler: attended`, Granite Speech, arXiv 2505.08699).

With `reads_question` the question stands beside the queries in every self-attention, so that the queries look for what
is asked (InstructBLIP, arXiv 2305.06500; X-InstructBLIP, 2311.18799). Where those have a text embedding of BERT's, the
question comes as the decoder's own embeddings through a norm and a linear layer, with sinusoidal positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from lalm.projectors.base import Projector, into_windows, step_mask

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
        reads_question: bool,
        input_norm: str,
        filler: str,
        stream_widths: Sequence[int],
    ):
        super().__init__()
        self.reads_question = reads_question
        self.window_steps = window_steps
        self.keeps_partial_window = partial_window == "keep"
        self.attends_filler = filler == "attended"
        norms = {"joined": lambda: nn.LayerNorm(encoder_width), "each": lambda: StreamNorms(stream_widths)}
        self.norm = norms.get(input_norm, nn.Identity)()
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
                use_qformer_text_input=reads_question,
            )
        )
        # The norm, because embedding tables differ a hundredfold in scale from family to family.
        self.question_to_hidden = (
            nn.Sequential(nn.LayerNorm(decoder_width), nn.Linear(decoder_width, hidden_size))
            if reads_question
            else None
        )
        self.to_decoder = nn.Linear(hidden_size, decoder_width)

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return self.to_decoder

    def forward(
        self,
        states: Tensor,
        num_steps: Tensor,
        question: Tensor | None = None,
        question_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As every projector; with `reads_question` also `question [B, K, D]`, `question_lengths [B]`."""
        size = self.window_steps or states.shape[1]
        windows, is_real = into_windows(self.norm(states), num_steps, size)
        num_windows = self._num_windows(num_steps, size)
        is_used = torch.arange(windows.shape[1], device=num_steps.device) < num_windows[:, None]
        used = windows[is_used]  # [windows of the whole batch, window_steps, E]
        beside, visible = self.queries.expand(len(used), -1, -1), None
        readable = is_real[is_used].long()
        if self.attends_filler:
            readable = torch.ones_like(readable)
        if self.question_to_hidden is not None:
            beside, visible = self._add_question(beside, question, question_lengths, is_used)
            # Ready-made: transformers 5.23 would give this mask a row for each word too, which read no audio.
            readable = torch.zeros(readable.shape, dtype=used.dtype, device=used.device).masked_fill(
                readable == 0, torch.finfo(used.dtype).min
            )[:, None, None]
        answers = self.qformer(
            query_embeds=beside,
            query_length=self.queries.shape[1],
            attention_mask=visible,
            encoder_hidden_states=used,
            encoder_attention_mask=readable,
        ).last_hidden_state[:, : self.queries.shape[1]]
        answers = self.to_decoder(answers)  # [windows, queries, D]
        positions = answers.new_zeros(*is_used.shape, *answers.shape[1:])
        positions[is_used] = answers
        return positions.flatten(1, 2), num_windows * self.queries.shape[1]

    def _add_question(
        self, queries: Tensor, question: Tensor | None, lengths: Tensor | None, is_used: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries and question of each used window `[windows, Q + K, hidden]`, and which of them are real."""
        if question is None or lengths is None:
            raise ValueError(
                "the projector reads the question (projector.reads_question), but none was given: pass question_ids "
                "and question_lengths, as the processor's chat template does"
            )
        assert self.question_to_hidden is not None
        text = self.question_to_hidden(question.to(queries.dtype))
        text = text + _sinusoids(text.shape[1], text.shape[2]).to(text)
        clip = is_used.nonzero()[:, 0]
        visible = torch.cat([is_used.new_ones(len(clip), queries.shape[1]), step_mask(lengths, text.shape[1])[clip]], 1)
        return torch.cat([queries, text[clip]], dim=1), visible.long()

    def _num_windows(self, num_steps: Tensor, size: int) -> Tensor:
        whole = torch.div(num_steps, size, rounding_mode="floor")
        if self.keeps_partial_window or self.window_steps is None:
            return torch.div(num_steps + size - 1, size, rounding_mode="floor")
        return torch.where(num_steps > 0, whole.clamp(min=1), whole)


class StreamNorms(nn.Module):
    """A LayerNorm of its own for each encoder's slice of the width, `[..., E]` -> `[..., E]`.

    A step that an encoder does not have (zeros, where another encoder has more steps) stays zero: SALMONN fills the
    shorter sequence behind the norms.
    """

    def __init__(self, stream_widths: Sequence[int]):
        super().__init__()
        self.widths = list(stream_widths)
        self.streams = nn.ModuleList(nn.LayerNorm(width) for width in stream_widths)

    def forward(self, states: Tensor) -> Tensor:
        parts = zip(self.streams, states.split(self.widths, dim=-1), strict=True)
        return torch.cat([norm(part) * part.any(dim=-1, keepdim=True) for norm, part in parts], dim=-1)


def _sinusoids(length: int, width: int) -> Tensor:
    """`[length, width]`: the positions of the original transformer (arXiv 1706.03762), sines before cosines."""
    half = (width + 1) // 2
    angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(half) / half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
