"""How tokens are chosen and read back: recipe options -> transformers, new ids -> text, text as it grows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, RepetitionPenaltyLogitsProcessor
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation.streamers import BaseStreamer

from lalm.errors import ModelError
from lalm.recipe.schema import GenerationSection

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for bytes that are not yet a whole UTF-8 character."""


def decoding_arguments(options: GenerationSection, stop_token_ids: Sequence[int]) -> GenerationConfig:
    """The recipe's generation section in transformers' words.

    Every field that a base model's own generation_config.json could fill in is set, so that only the recipe decides.

    Raises:
        ModelError: if no token ends an answer.
    """
    if not stop_token_ids:
        raise ModelError("no token ends an answer: neither the tokenizer nor the chat template names one")
    samples = options.temperature > 0
    return GenerationConfig(
        max_new_tokens=options.max_new_tokens,
        min_new_tokens=0,
        num_beams=options.num_beams,
        do_sample=samples,
        temperature=options.temperature if samples else 1.0,
        top_p=options.top_p if samples else 1.0,
        top_k=0 if samples else 50,  # transformers' default, or it warns that greedy decoding ignores it.
        repetition_penalty=float(options.repetition_penalty),
        no_repeat_ngram_size=0,
        eos_token_id=list(stop_token_ids),
        # A finished row goes on with an id that the embedding table surely has.
        pad_token_id=stop_token_ids[0],
    )


def generate_ids(
    model: LalmForConditionalGeneration,
    inputs: dict[str, Tensor],
    arguments: GenerationConfig,
    **extra: Any,
) -> list[list[int]]:
    """New ids of each row of embedded prompts (`embed_prompts`), up to and with their first stop token.

    `extra` goes to transformers' `generate`: a streamer, a cache.
    """
    arguments = copy.copy(arguments)
    if (penalty := arguments.repetition_penalty) != 1.0:
        # Left to itself, transformers leaves out as many new tokens of a row as it has padding before its prompt.
        extra["logits_processor"] = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(penalty)])
        arguments.repetition_penalty = 1.0
    # transformers types `generate` for a class of its own and for five kinds of output; this one gives ids.
    output: Tensor = cast(Any, model).generate(**inputs, generation_config=arguments, **extra)
    return [cut_at_stop(ids, set(arguments.eos_token_id)) for ids in output.tolist()]


def cut_at_stop(ids: Sequence[int], stop_token_ids: Collection[int]) -> list[int]:
    """New ids up to and with the first stop token; what follows is only padding of the batch."""
    for end, token in enumerate(ids, start=1):
        if token in stop_token_ids:
            return list(ids[:end])
    return list(ids)


def read_answer(processor: LalmProcessor, ids: Sequence[int]) -> str:
    """New ids -> the answer's text: no stop token, no special tokens, no space around it."""
    return _decode(processor, [token for token in ids if token not in set(processor.stop_token_ids)]).strip()


class AnswerStream(BaseStreamer):
    """Hands an answer to `on_text` piece by piece while `generate` runs, and counts its tokens.

    A piece never ends inside a UTF-8 character, and all pieces together are exactly `read_answer` of all ids.
    What `on_text` raises ends the generation.
    """

    def __init__(self, processor: LalmProcessor, on_text: Callable[[str], None], on_token: Callable[[], None]):
        self._processor = processor
        self._on_text = on_text
        self._on_token = on_token
        self._ids: list[int] = []
        self._sent = ""
        self._is_prompt = True

    def put(self, value: Tensor) -> None:
        """Takes the prompt first (which is left out), then one token at a time."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self._ids.extend(value.flatten().tolist())
        self._on_token()
        # Space at the end waits too: it is part of the answer only if something follows.
        text = read_answer(self._processor, self._ids)
        self._send(text.rstrip(UNFINISHED).rstrip())

    def end(self) -> None:
        """Sends what was held back."""
        self._send(read_answer(self._processor, self._ids))

    def _send(self, text: str) -> None:
        if len(text) > len(self._sent):
            piece, self._sent = text[len(self._sent) :], text
            self._on_text(piece)


class PromptCache:
    """Keys and values of the ids that a conversation has already read, so that a next turn reads only what is new."""

    def __init__(self, config: PreTrainedConfig):
        self._config = config
        self._lora_scale: float | None = None
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._ids: list[int] = []
        self._cache = DynamicCache(config=self._config)

    def start(self, prompt: Sequence[int], lora_scale: float) -> DynamicCache:
        """The cache, cut back to what the kept ids and `prompt` share; at least one id of `prompt` is left to read.

        Another adapter scale means another model, which has read nothing yet.
        """
        if lora_scale != self._lora_scale:
            self.clear()
        self._lora_scale = lora_scale
        shared = 0
        for kept, wanted in zip(self._ids, prompt[:-1], strict=False):
            if kept != wanted:
                break
            shared += 1
        if shared < len(self._ids):
            if all(type(layer) is DynamicLayer for layer in self._cache.layers):
                self._cache.crop(shared - self._cache.get_seq_length())
                self._ids = self._ids[:shared]
            else:  # A sliding window has already dropped what would be needed.
                self.clear()
        return self._cache

    def keep(self, prompt: Sequence[int], new_ids: Sequence[int]) -> None:
        """Notes what the cache holds after an answer; its last token was never read."""
        self._ids = [*prompt, *new_ids][: self._cache.get_seq_length()]


def _decode(processor: LalmProcessor, ids: list[int]) -> str:
    return processor.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
