"""From turns and clips to what the decoder reads: the same ids as in training, and one embedded prompt.

The text comes from `processor.encode_turns` alone, so that training, evaluation and chat cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lalm.data.records import Turn
from lalm.errors import AudioError, DataError, ModelError

if TYPE_CHECKING:
    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor


@dataclass(frozen=True)
class Request:
    """A conversation that waits for an answer.

    `waveforms`: clips in prompt order, each float32 `[S]` at `processor.sampling_rate`. `states`: the same clips as
    encoder states `[T, E]` (from a cache), which are then used instead and cost no encoder pass.

    Raises:
        DataError: if the last turn is not a user turn.
    """

    turns: tuple[Turn, ...]
    waveforms: tuple[np.ndarray, ...] = ()
    states: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        if not self.turns or self.turns[-1].role != "user":
            roles = [turn.role for turn in self.turns]
            raise DataError(f"a request must end with a user turn to be answered, its turns are {roles}")

    @property
    def num_clips(self) -> int:
        """Clips of the conversation."""
        return len(self.waveforms if self.states is None else self.states)


def positions_of_clips(model: LalmForConditionalGeneration, processor: LalmProcessor, request: Request) -> list[int]:
    """Audio positions `A` of each clip of a request.

    Raises:
        AudioError: if a clip is so short that it gives none.
    """
    if request.states is None:
        lengths = [len(waveform) for waveform in request.waveforms]
        counts = [processor.num_positions(length) for length in lengths]
        unit = f"samples at {processor.sampling_rate} Hz"
    else:
        lengths = [len(states) for states in request.states]
        rule = model.config.position_rule()
        counts, unit = [rule.count(length) for length in lengths], "encoder steps"
    for number, (length, count) in enumerate(zip(lengths, counts, strict=True), start=1):
        if count < 1:
            raise AudioError(f"clip {number}: {length} {unit} are too short to be heard. Give a longer clip.")
    return counts


def with_known_positions(
    model: LalmForConditionalGeneration, processor: LalmProcessor, requests: Sequence[Request]
) -> list[Request]:
    """The same requests, clips as encoder states where only these tell how many positions a clip takes."""
    if processor.step_rule is None:
        return list(requests)
    with torch.no_grad():
        return [
            replace(request, states=tuple(encode_clips(model, processor, request.waveforms)))
            if request.states is None
            else request
            for request in requests
        ]


def prompt_ids(processor: LalmProcessor, turns: Sequence[Turn], num_positions: list[int]) -> list[int]:
    """Ids of a prompt up to where the answer starts, with a placeholder id at every audio position."""
    return list(processor.encode_turns(turns, num_positions, add_generation_prompt=True).input_ids)


def questions_of(processor: LalmProcessor, turns: Sequence[Turn], num_positions: list[int]) -> list[list[int]]:
    """Ids of the question of each clip, for a model that reads them; none for any other."""
    if not processor.reads_question:
        return []
    return processor.encode_turns(turns, num_positions, add_generation_prompt=True).questions


def encode_clips(
    model: LalmForConditionalGeneration, processor: LalmProcessor, waveforms: Sequence[np.ndarray]
) -> list[Tensor]:
    """Clips `[S]` -> encoder states `[T, E]` of each, on the model's device, in one pass of the tower."""
    if not waveforms:
        return []
    inputs = processor.audio_inputs(list(waveforms))
    on_device = {name: _to(value, model.device) for name, value in inputs.items()}
    states, num_steps = model.encode_audio(**on_device)
    return [clip[:length] for clip, length in zip(states, num_steps.tolist(), strict=True)]


def embed_prompts(
    model: LalmForConditionalGeneration,
    prompts: Sequence[list[int]],
    clips: Sequence[Tensor],
    questions: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Left-padded prompts, ready for the decoder.

    Args:
        prompts: ids of each row.
        clips: encoder states `[T, E]` of all rows' clips, row after row.
        questions: `LalmProcessor.question_inputs` of the same clips.

    Returns:
        `inputs_embeds [B, L, D]`, `attention_mask [B, L]`, and what cross-attention reads. Embedded, because then beams
        repeat whole rows and a repetition penalty never looks up a placeholder id, which lies beyond the vocabulary.
    """
    length = max(len(ids) for ids in prompts)
    input_ids = torch.zeros(len(prompts), length, dtype=torch.long, device=model.device)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(prompts):
        input_ids[row, length - len(ids) :] = torch.tensor(ids, device=model.device)
        attention_mask[row, length - len(ids) :] = 1
    audio = {}
    if clips:
        audio["audio_states"] = torch.nn.utils.rnn.pad_sequence(
            [clip.to(model.device, torch.float32) for clip in clips], batch_first=True
        )
        audio["audio_state_lengths"] = torch.tensor([len(clip) for clip in clips], device=model.device)
        audio |= {name: value.to(model.device) for name, value in (questions or {}).items()}
    return {**model.embed_inputs(input_ids, **audio), "attention_mask": attention_mask}


def check_room(model: LalmForConditionalGeneration, num_prompt: int, num_new: int) -> None:
    """Refuses a prompt that leaves no room for the answer.

    Raises:
        ModelError: if prompt and answer are longer than the language model's positions.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and num_prompt + num_new > limit:
        raise ModelError(
            f"the prompt takes {num_prompt} positions and the answer may take {num_new}, but the language model has "
            f"{limit}. Use a shorter clip, fewer turns or a smaller generation.max_new_tokens."
        )


@contextmanager
def answering(model: LalmForConditionalGeneration, lora_scale: float) -> Iterator[None]:
    """No gradients, no dropout and the adapter at `lora_scale`; mode and scale are put back on leaving."""
    was_training, scale_before = model.training, model.lora_scale
    model.eval()
    if lora_scale != scale_before:
        model.set_lora_scale(lora_scale)
    try:
        with torch.no_grad():
            yield
    finally:
        if lora_scale != scale_before:
            model.set_lora_scale(scale_before)
        model.train(was_training)


def _to(value: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    return value.to(device) if isinstance(value, Tensor) else [item.to(device) for item in value]
