"""Encoder-decoder language models (Flan-T5: SpeechVerse, arXiv 2405.08295; MINT): the prompt with its audio vectors is
the encoder's input, the answer the decoder's target.

A row of a batch is laid out as for any decoder, prompt and answer in one sequence, and is cut here where its
supervision starts. Rows hold one conversation with one answer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lalm.model.loss import IGNORED


def cut_at_answer(embeds: Tensor, labels: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Rows `[B, L, D]` with labels `[B, L]` -> prompts `[B, P, D]`, their mask `[B, P]`, targets `[B, A]`.

    What stands behind an answer's end token is left out; -100 stands behind targets.

    Raises:
        ValueError: if a row has no answer, or more than one.
    """
    is_answer = labels != IGNORED
    starts = (is_answer & ~nn.functional.pad(is_answer[:, :-1], (1, 0))).sum(dim=1)
    if (starts != 1).any():
        raise ValueError(
            f"an encoder-decoder language model learns one answer a conversation, got {starts.tolist()}. Split "
            "conversations of several turns, and leave train_on_inputs off."
        )
    prompt_lengths, answer_lengths = is_answer.long().argmax(dim=1), is_answer.sum(dim=1)
    longest, places = int(prompt_lengths.max()), torch.arange(labels.shape[1], device=labels.device)
    mask = places[None, :longest] < prompt_lengths[:, None]
    if attention_mask is not None:
        mask = mask & attention_mask[:, :longest].bool()
    targets = labels.new_full((len(labels), int(answer_lengths.max())), IGNORED)
    targets[places[None, : targets.shape[1]] < answer_lengths[:, None]] = labels[is_answer]
    return embeds[:, :longest], mask.long(), targets


def answer_logits(model: PreTrainedModel, embeds: Tensor, mask: Tensor | None, targets: Tensor) -> Tensor:
    """Logits `[B, A, V]` of each target `[B, A]` given the prompts `[B, P, D]` and the targets before it."""
    start = torch.full_like(targets[:, :1], start_token(model))
    decoder_input_ids = torch.cat([start, targets[:, :-1].clamp(min=0)], dim=1)  # what follows -100 predicts nothing
    return model(inputs_embeds=embeds, attention_mask=mask, decoder_input_ids=decoder_input_ids, use_cache=False).logits


def answer_loss(
    model: PreTrainedModel,
    embeds: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None,
    num_items: Tensor | float | None,
) -> Tensor:
    """Mean negative log-likelihood of the answers' tokens; divided by `num_items` instead, if it is given."""
    prompts, mask, targets = cut_at_answer(embeds, labels, attention_mask)
    logits = answer_logits(model, prompts, mask, targets).float()
    total = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / ((targets != IGNORED).sum() if num_items is None else num_items)


def generate_answers(model: PreTrainedModel, **kwargs: Any) -> Tensor:
    """transformers' `generate` on embedded prompts; new ids only, without the decoder's start token."""
    ids = model.generate(**kwargs, decoder_start_token_id=start_token(model))
    if not isinstance(ids, Tensor):
        raise ValueError("return_dict_in_generate is not supported for an encoder-decoder language model")
    return ids[:, 1:]


def start_token(model: PreTrainedModel) -> int:
    """The id that the decoder starts with: T5 takes its padding."""
    token = getattr(model.config, "decoder_start_token_id", None)
    return model.config.pad_token_id if token is None else token
