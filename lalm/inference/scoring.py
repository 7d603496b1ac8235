"""How likely a model finds each of some given answers: for closed questions, without generating text."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lalm.data.records import Turn
from lalm.errors import DataError
from lalm.inference.prompting import (
    Request,
    answering,
    check_room,
    embed_prompts,
    encode_clips,
    positions_of_clips,
    prompt_ids,
    questions_of,
    with_known_positions,
)

if TYPE_CHECKING:
    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor

IGNORED = -100
"""The label of a position that is not supervised."""


@dataclass(frozen=True)
class OptionScore:
    """Log-likelihood (natural logarithm) of one answer, its end token included."""

    total: float
    num_tokens: int

    @property
    def mean(self) -> float:
        """Log-likelihood of one token, so that long answers are not at a disadvantage."""
        return self.total / self.num_tokens


def score_options(
    model: LalmForConditionalGeneration,
    processor: LalmProcessor,
    request: Request,
    options: Sequence[str],
    *,
    lora_scale: float = 1.0,
    batch_size: int = 32,
) -> list[OptionScore]:
    """The log-likelihood of each option as the answer to a request, in order.

    The prompt, with its audio, is read once; the options follow it in batches. What is scored is what training
    supervises: the answer's text and its end token.

    Raises:
        DataError: if there are no options, or one of them is empty.
        AudioError: if a clip is too short to give one audio position.
        ModelError: if prompt and answer are longer than the language model's positions.
    """
    if not options or not all(option.strip() for option in options):
        raise DataError(f"options to score must be one or more non-empty texts, got {list(options)}")
    [request] = with_known_positions(model, processor, [request])
    num_positions = positions_of_clips(model, processor, request)
    prompt = prompt_ids(processor, request.turns, num_positions)
    answers = [_answer_ids(processor, request.turns, num_positions, len(prompt), option) for option in options]
    check_room(model, len(prompt), max(len(ids) for ids, _ in answers))
    scores: list[OptionScore] = []
    with answering(model, lora_scale):
        states = encode_clips(model, processor, request.waveforms) if request.states is None else request.states
        questions = processor.question_inputs(questions_of(processor, request.turns, num_positions))
        inputs = embed_prompts(model, [prompt], states, questions)
        if model.has_encoder:
            for start in range(0, len(answers), batch_size):
                scores += _score_behind_encoder(model, inputs, answers[start : start + batch_size])
            return scores
        read = model(**inputs, use_cache=True, logits_to_keep=1)
        heard = {name: value for name, value in inputs.items() if name in ("audio_context", "audio_context_clips")}
        for start in range(0, len(answers), batch_size):
            batch = answers[start : start + batch_size]
            scores += _score_batch(model, read.logits, copy.deepcopy(read.cache), len(prompt), batch, heard)
    return scores


def _answer_ids(
    processor: LalmProcessor, turns: Sequence[Turn], num_positions: list[int], num_prompt: int, option: str
) -> tuple[list[int], list[bool]]:
    """Ids that follow the prompt when `option` is the answer, and which of them are supervised."""
    whole = processor.encode_turns((*turns, Turn(role="assistant", content=option)), num_positions)
    ids, is_scored = list(whole.input_ids), [label != IGNORED for label in whole.labels]
    end = max(i for i, scored in enumerate(is_scored) if scored) + 1
    return ids[num_prompt:end], is_scored[num_prompt:end]


def _score_behind_encoder(
    model: LalmForConditionalGeneration, inputs: dict[str, Tensor], answers: Sequence[tuple[list[int], list[bool]]]
) -> list[OptionScore]:
    """As `_score_batch`, for a language model whose encoder reads the prompt."""
    prompt = inputs["inputs_embeds"]
    num_rows, length = len(answers), max(len(ids) for ids, _ in answers)
    labels = torch.full((num_rows, prompt.shape[1] + length), IGNORED, device=model.device)
    for row, (ids, scored) in enumerate(answers):
        kept = [token if counts else IGNORED for token, counts in zip(ids, scored, strict=True)]
        labels[row, prompt.shape[1] : prompt.shape[1] + len(ids)] = torch.tensor(kept, device=model.device)
    rows = torch.nn.functional.pad(prompt, (0, 0, 0, length)).expand(num_rows, -1, -1)
    totals = [
        model(inputs_embeds=rows[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=1.0).loss.item()
        for i in range(num_rows)
    ]
    counts = (labels != IGNORED).sum(dim=1).tolist()
    return [OptionScore(-total, count) for total, count in zip(totals, counts, strict=True)]


def _score_batch(
    model: LalmForConditionalGeneration,
    first_logits: Tensor,
    cache,
    num_prompt: int,
    answers: Sequence[tuple[list[int], list[bool]]],
    heard: dict[str, Tensor],
) -> list[OptionScore]:
    """Teacher forcing of some answers behind one prompt, whose last logits `[1, 1, V]` predict their first token.

    `heard`: what cross-attention reads, one row.
    """
    num_rows, length = len(answers), max(len(ids) for ids, _ in answers)
    ids = torch.zeros(num_rows, length, dtype=torch.long, device=model.device)
    is_scored = torch.zeros_like(ids, dtype=torch.bool)
    attention_mask = torch.zeros(num_rows, num_prompt + length, dtype=torch.long, device=model.device)
    for row, (answer, scored) in enumerate(answers):
        ids[row, : len(answer)] = torch.tensor(answer, device=model.device)
        is_scored[row, : len(answer)] = torch.tensor(scored, device=model.device)
        attention_mask[row, : num_prompt + len(answer)] = 1
    logits = first_logits.expand(num_rows, -1, -1)
    if length > 1:
        cache.batch_repeat_interleave(num_rows)
        position_ids = torch.arange(num_prompt, num_prompt + length - 1, device=model.device)
        rest = model(
            input_ids=ids[:, :-1],
            attention_mask=attention_mask[:, :-1],
            position_ids=position_ids.expand(num_rows, -1),
            use_cache=True,
            cache=cache,
            **{name: value.expand(num_rows, *value.shape[1:]) for name, value in heard.items()},
        ).logits
        logits = torch.cat([logits, rest], dim=1)
    log_likelihood = logits.float().log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]
    totals = log_likelihood.masked_fill(~is_scored, 0).sum(dim=1)
    return [
        OptionScore(total, count) for total, count in zip(totals.tolist(), is_scored.sum(dim=1).tolist(), strict=True)
    ]
