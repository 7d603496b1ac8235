"""Gated cross-attention into the language model's layers: the second way in for audio, beside positions.

Before every n-th decoder layer stands a block (Flamingo, arXiv 2204.14198; Audio Flamingo, 2402.01831): the text's
states read the audio vectors, then a feed-forward; both are added through a tanh gate that starts at 0, so that the
model starts as the text model. In the text a clip is one placeholder. A text position reads clips that stand at or
before it in its own conversation. What it reads depends on no cache: decoding keeps the audio vectors beside it.

The blocks run in forward hooks, so that the language model's modules keep their names and adapters, quantisation and
published weights work as without them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lalm.model.decoder import decoder_layers
from lalm.recipe.schema import CrossAttentionSection

CONTEXT_INPUTS = ("audio_context", "audio_context_clips", "audio_range")
"""What `context_inputs` gives to the model's forward."""


class CrossAttention(nn.Module):
    """The blocks of one language model, and what they read in the current forward pass.

    With gradient checkpointing the blocks run again in the backward pass, which must come before the next forward.
    """

    def __init__(self, section: CrossAttentionSection, language_model: PreTrainedModel, audio_width: int):
        """Hooks the blocks before every `section.every`-th layer. Raises `ModelError` if it has no known layers."""
        super().__init__()
        if language_model.config.is_encoder_decoder:
            raise ValueError(
                "language_model.cross_attention enters decoder-only language models; this one has an encoder"
            )
        width = language_model.config.get_text_config().hidden_size
        layers = decoder_layers(language_model)
        if section.every > len(layers):
            raise ValueError(f"cross_attention.every is {section.every}, the language model has {len(layers)} layers")
        self.sees_last_only = section.sees == "last"
        # OPT-350m's embeddings are narrower than its layers.
        table = cast(nn.Embedding, language_model.get_input_embeddings())
        self.placeholder = nn.Parameter(torch.randn(table.embedding_dim) * 0.02)
        entered = layers[section.every - 1 :: section.every]
        self.blocks = nn.ModuleList(GatedBlock(section, width, audio_width) for _ in entered)
        self._states: Tensor | None = None
        self._visible: Tensor | None = None
        for number, layer in enumerate(entered):
            layer.register_forward_pre_hook(partial(_enter, self, number), with_kwargs=True)

    def match_scale(self, std: float) -> None:
        """The placeholder as long as the decoder's text embeddings, whose numbers have this standard deviation."""
        with torch.no_grad():
            self.placeholder.mul_(std / self.placeholder.float().std().clamp(min=1e-6))

    def set_context(self, states: Tensor | None, clips: Tensor | None, text_range: Tensor | None, length: int) -> None:
        """What the next pass over `length` text positions reads; no audio with None.

        Args:
            states: `[B, M, W]`, audio vectors of a row, clip behind clip.
            clips: `[B, M]`, number of the clip in its row from 1; 0 at padding.
            text_range: `[B, length, 2]`: clips above the first number and up to the second are heard. None for text
                behind all clips.
        """
        if states is None or clips is None:
            self._states = self._visible = None
            return
        if text_range is None:
            last = clips.amax(dim=1)[:, None].expand(-1, length)
            text_range = torch.stack([torch.zeros_like(last), last], dim=-1)
        first, last = text_range[..., 0, None], text_range[..., 1, None]
        visible = (clips[:, None] > first) & (clips[:, None] <= last)
        self._visible = visible & (clips[:, None] == last) if self.sees_last_only else visible
        self._states = states

    def read(self, number: int, hidden_states: Tensor) -> Tensor:
        """What enters the layer of block `number` instead of `hidden_states [B, L, D]`."""
        if self._states is None or self._visible is None:
            return hidden_states
        return self.blocks[number](hidden_states, self._states, self._visible)


class GatedBlock(nn.Module):
    """Cross-attention and feed-forward, each behind a tanh gate at 0. Computes in its own precision."""

    def __init__(self, section: CrossAttentionSection, width: int, audio_width: int):
        super().__init__()
        inner = section.num_heads * section.head_size
        self.num_heads = section.num_heads
        self.norm = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, inner, bias=False)
        self.to_key_value = nn.Linear(audio_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, section.feed_forward_factor * width, bias=False),
            nn.GELU(),
            nn.Linear(section.feed_forward_factor * width, width, bias=False),
        )
        self.feed_forward_gate = nn.Parameter(torch.zeros(1))

    def forward(self, hidden_states: Tensor, audio: Tensor, visible: Tensor) -> Tensor:
        """`hidden_states [B, L, D]`, `audio [B, M, W]`, `visible [B, L, M]` -> `[B, L, D]` in the dtype of the first.

        A position that hears nothing passes through unchanged.
        """
        given, hidden = hidden_states.dtype, hidden_states.to(self.to_query.weight.dtype)
        hears = visible.any(dim=-1, keepdim=True)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.to_query(self.norm(hidden)), *self.to_key_value(audio.to(hidden.dtype)).chunk(2, dim=-1))
        )
        mask = (visible | ~hears)[:, None]  # no empty softmax
        read = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        read = self.to_out(read.transpose(1, 2).flatten(2))
        heard = hidden + self.attention_gate.tanh() * read
        heard = heard + self.feed_forward_gate.tanh() * self.feed_forward(heard)
        return torch.where(hears, heard, hidden).to(given)


def context_inputs(
    input_ids: Tensor, audio_token_id: int, positions: Tensor, num_positions: Tensor, group_ids: Tensor | None = None
) -> dict[str, Tensor]:
    """The clips of a batch, laid out by row, and which of them each text position hears.

    Args:
        input_ids: `[B, L]` with one placeholder a clip.
        positions, num_positions: `[clips, A, W]`, `[clips]`: audio vectors in row order.
        group_ids: `[B, L]` of packed rows: a conversation hears its own clips only.

    Raises:
        ValueError: if there are not as many placeholders as clips.
    """
    is_clip = input_ids == audio_token_id
    rows, places = is_clip.nonzero(as_tuple=True)
    if len(rows) != len(positions):
        raise ValueError(f"the text holds {len(rows)} placeholders, one for each clip, but {len(positions)} clips come")
    last = is_clip.long().cumsum(dim=1)
    first = torch.zeros_like(last)
    if group_ids is not None:
        begins = group_ids != nn.functional.pad(group_ids[:, :-1], (1, 0), value=-2)
        first = torch.where(begins, last - is_clip.long(), 0).cummax(dim=1).values
    is_real = torch.arange(positions.shape[1], device=positions.device) < num_positions[:, None]
    row = rows.repeat_interleave(num_positions)
    counts = torch.bincount(row, minlength=len(input_ids))
    column = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    states = positions.new_zeros(len(input_ids), int(counts.max()), positions.shape[-1])
    clips = torch.zeros(states.shape[:2], dtype=torch.long, device=row.device)
    clips[row, column] = last[rows, places].repeat_interleave(num_positions)
    states = states.index_put((row, column), positions[is_real])
    return {
        "audio_context": states,
        "audio_context_clips": clips,
        "audio_range": torch.stack([first, last], dim=-1),
    }


def unheard_context(positions: Tensor, num_rows: int, length: int) -> dict[str, Tensor]:
    """`positions [clips, A, W]` that no text hears: the blocks run, as they do in every other process, and leave
    `[num_rows, length, D]` as it is."""
    states = positions.flatten(0, 1)[None].expand(num_rows, -1, -1)
    clips = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    nothing = torch.zeros(num_rows, length, 2, dtype=torch.long, device=states.device)
    return {"audio_context": states, "audio_context_clips": clips, "audio_range": nothing}


def range_of_step(text_range: Tensor, length: int, *, is_first: bool) -> Tensor:
    """The part of a prompt's `audio_range [B, L, 2]` that a step of decoding over `length` positions needs.

    The first step reads the prompt, or what of it no cache holds; later ones read new text, which hears all clips.
    """
    if is_first:
        return text_range[:, -length:]
    behind = text_range[:, -1:]
    if length < text_range.shape[1]:
        return behind.expand(-1, length, -1)
    return torch.cat([text_range, behind.expand(-1, length - text_range.shape[1], -1)], dim=1)


def _enter(cross_attention: CrossAttention, number: int, layer: nn.Module, args: tuple, kwargs: dict[str, Any]):
    """The forward hook: the first argument of a decoder layer, whatever its family, is its hidden states."""
    if args:
        return (cross_attention.read(number, args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": cross_attention.read(number, kwargs["hidden_states"])}
