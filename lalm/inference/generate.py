"""Answers to many requests, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from lalm.inference.decoding import decoding_arguments, generate_ids, read_answer
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
from lalm.recipe.schema import GenerationSection

if TYPE_CHECKING:
    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor

__all__ = ["Request", "generate_answers"]


def generate_answers(
    model: LalmForConditionalGeneration,
    processor: LalmProcessor,
    requests: Sequence[Request],
    options: GenerationSection,
    *,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """The answer to each request, in the order of the requests.

    Longest prompts first, so that a batch holds little padding and too large a batch fails at once. The greedy answer
    to a request does not depend on its batch (in float32; lower precisions may break ties otherwise). The model's mode
    and adapter scale are put back.

    Args:
        progress: called after each batch with the number of requests it answered.

    Raises:
        ValueError: if `batch_size` is not positive.
        AudioError: if a clip is too short to give one audio position.
        ModelError: if a prompt and its answer are longer than the language model's positions.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    arguments = decoding_arguments(options, processor.stop_token_ids)
    requests = with_known_positions(model, processor, requests)
    prompts = [
        prompt_ids(processor, request.turns, positions_of_clips(model, processor, request)) for request in requests
    ]
    check_room(model, max(map(len, prompts), default=0), options.max_new_tokens)
    answers = [""] * len(requests)
    with answering(model, options.lora_scale):
        for batch in _batches([len(ids) for ids in prompts], batch_size):
            chosen = [requests[i] for i in batch]
            questions = [
                question
                for request in chosen
                for question in questions_of(processor, request.turns, positions_of_clips(model, processor, request))
            ]
            inputs = embed_prompts(
                model,
                [prompts[i] for i in batch],
                _states(model, processor, chosen),
                processor.question_inputs(questions),
            )
            new_ids = generate_ids(model, inputs, arguments)
            for i, ids in zip(batch, new_ids, strict=True):
                answers[i] = read_answer(processor, ids)
            if progress is not None:
                progress(len(batch))
    return answers


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def _states(model: LalmForConditionalGeneration, processor: LalmProcessor, requests: Sequence[Request]) -> list:
    """Encoder states of all clips of a batch, request after request; what has none yet is encoded in one pass."""
    waveforms = [waveform for request in requests if request.states is None for waveform in request.waveforms]
    encoded = iter(encode_clips(model, processor, waveforms))
    return [
        states
        for request in requests
        for states in (request.states if request.states is not None else [next(encoded) for _ in request.waveforms])
    ]
