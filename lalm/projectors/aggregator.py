"""GAMA's Audio Q-Former and multi-layer aggregator (arXiv 2406.11768), with its soft prompt.

Two branches over one encoder. The queries of a Q-Former read the last layer; the last layer's own steps read earlier
layers, one decoder layer each. Both end in a LayerNorm without parameters and two linear layers. Q-Former first, as in
the released code, then the steps, then the learned soft prompt.

The released code computes what the steps read of the earlier layers and goes on without it, so that these attentions
were never trained: `reads_taps=False` builds its network.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from lalm.projectors.base import Projector, into_windows, join_in_time, masked_mean, step_mask
from lalm.projectors.qformer import QUERY_STD

BERT_EPSILON = 1e-12
"""Of its norms; it matters where `input_scale` leaves states this small."""


class AggregatorProjector(Projector):
    """Reads `num_taps` earlier layers and the last one: `states [B, num_taps + 1, T, E]`, the last layer last.

    The taps come as the encoder has them, shallowest first; they are read from the deepest to the shallowest. Without
    `reads_taps` the steps pass as many layers and read themselves alone: `states [B, T, E]`.
    """

    def __init__(
        self,
        *,
        encoder_width: int,
        decoder_width: int,
        num_taps: int,
        reads_taps: bool,
        input_scale: float,
        pool_steps: int,
        queries: int,
        num_layers: int,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        cross_attention_every: int,
        dropout: float,
        soft_prompt: int,
    ):
        super().__init__()
        if encoder_width % num_heads:
            raise ValueError(f"an encoder of width {encoder_width} cannot be read by num_heads {num_heads}")
        self.num_layer_inputs = num_taps + 1 if reads_taps else 1
        self.pool_steps, self.input_scale = pool_steps, input_scale
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
        # Attention to itself, to the tap, feed-forward, each with a norm behind it: BERT's layer.
        layer = nn.TransformerDecoderLayer if reads_taps else nn.TransformerEncoderLayer
        self.readers = nn.ModuleList(
            layer(
                encoder_width,
                num_heads,
                intermediate_size,
                dropout,
                activation="gelu",
                layer_norm_eps=BERT_EPSILON,
                batch_first=True,
            )
            for _ in range(num_taps)
        )
        self.queries_to_decoder = _to_decoder(hidden_size, decoder_width)
        self.steps_to_decoder = _to_decoder(encoder_width, decoder_width)
        self.soft_prompt = nn.Parameter(torch.randn(soft_prompt, decoder_width) * QUERY_STD) if soft_prompt else None

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        return _last(self.steps_to_decoder)

    def match_scale(self, std: float) -> None:
        for branch in (self.queries_to_decoder, self.steps_to_decoder):
            # The GELU of a unit-variance layer's outputs leaves a mean square of about 0.09 instead of 1.
            _last(branch).weight.data.mul_(std * (3 / 0.09) ** 0.5)
            _last(branch).bias.data.zero_()
        if self.soft_prompt is not None:
            self.soft_prompt.data.mul_(std / QUERY_STD)

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        scaled = states * self.input_scale
        *taps, last = scaled.unbind(dim=1) if self.num_layer_inputs > 1 else (scaled,)
        is_step = step_mask(num_steps, last.shape[1])
        has_audio = num_steps > 0
        pooled = masked_mean(*into_windows(last, num_steps, self.pool_steps))
        num_pooled = torch.div(num_steps + self.pool_steps - 1, self.pool_steps, rounding_mode="floor")
        is_real = step_mask(num_pooled, pooled.shape[1])
        answers = self.qformer(
            query_embeds=self.queries.expand(len(states), -1, -1),
            encoder_hidden_states=self.norm(pooled),
            encoder_attention_mask=(is_real | ~has_audio[:, None]).long(),
        ).last_hidden_state
        steps = pooled
        # A clip without any step sees its filler, so that no softmax is empty; its positions count nothing.
        hides_pooled, hides_step = ~is_real & has_audio[:, None], ~is_step & has_audio[:, None]
        if not taps:
            for reader in self.readers:
                steps = reader(steps, src_key_padding_mask=hides_pooled)
        for reader, tap in zip(self.readers, reversed(taps), strict=bool(taps)):
            steps = reader(
                steps,
                tap.masked_fill(~is_step[..., None], 0),
                tgt_key_padding_mask=hides_pooled,
                memory_key_padding_mask=hides_step,
            )
        parts = [self.queries_to_decoder(answers), self.steps_to_decoder(steps)]
        lengths = [torch.full_like(num_steps, answers.shape[1]) * has_audio, num_pooled]
        if self.soft_prompt is not None:
            parts.append(self.soft_prompt.expand(len(states), -1, -1))
            lengths.append(torch.full_like(num_steps, len(self.soft_prompt)) * has_audio)
        return join_in_time(parts, lengths)


def _last(layers: nn.Sequential) -> nn.Linear:
    return cast(nn.Linear, layers[-1])


def _to_decoder(width: int, decoder_width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width, elementwise_affine=False),
        nn.Linear(width, decoder_width),
        nn.GELU(),
        nn.Linear(decoder_width, decoder_width),
    )
