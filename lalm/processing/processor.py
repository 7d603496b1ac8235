"""`LalmProcessor`: clips and conversations -> what the model reads, as a transformers processor.

    inputs = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=True, return_dict=True)
    answer = processor.decode(model.generate(**inputs)[0], skip_special_tokens=True)

It holds the tokenizer, the chat template, one front end for each audio encoder, and the rule from samples to audio
positions; all are saved by `save_pretrained`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from lalm.audio.features import FrontEnd
from lalm.audio.lengths import LengthRule
from lalm.data.records import Turn
from lalm.errors import DataError, ModelError
from lalm.processing.clips import features_of, read_clip, sort_clips
from lalm.processing.conversations import read_conversations
from lalm.processing.prompts import IGNORED, Encoded, PromptAssembler, place_clips
from lalm.processing.select import choose_template
from lalm.processing.templates import AUDIO_TOKEN, ChatTemplate

_PAD_TOKENS = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")
"""Tokens that vocabularies keep for padding or hardly use, to be taken where a tokenizer names none."""

_RULE = TypeAdapter(LengthRule)
_FRONT_ENDS = TypeAdapter(list[FrontEnd])


class LalmProcessor(ProcessorMixin):
    """Made by `create` from a base model's tokenizer, or by `from_pretrained` from a folder."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        template_name: str = "custom",
        front_ends: Sequence[FrontEnd | Mapping[str, Any]] = (),
        position_rule: LengthRule | Mapping[str, Any] | None = None,
        system: str = "",
        reads_question: bool = False,
        step_rule: LengthRule | Mapping[str, Any] | None = None,
    ):
        """What a saved processor consists of; `create` fills it in.

        Raises:
            ModelError: if the template does not fit the tokenizer.
        """
        if chat_template is None or position_rule is None or not front_ends:
            raise ModelError(
                "a LalmProcessor needs a chat template, a position rule and a front end; see LalmProcessor.create"
            )
        super().__init__(tokenizer, chat_template=chat_template)
        self.template_name = template_name
        self.front_ends: list[FrontEnd] = _FRONT_ENDS.validate_python(list(front_ends))
        self.position_rule: LengthRule = _RULE.validate_python(position_rule)
        self.system = system
        self.reads_question = reads_question
        self.step_rule: LengthRule | None = None if step_rule is None else _RULE.validate_python(step_rule)
        self._model: Any = None
        self.audio_token = AUDIO_TOKEN
        self.audio_token_id: int = _prepare_tokenizer(tokenizer)
        tokenizer.chat_template = chat_template
        self.prompts = self._assembler(ChatTemplate(template_name, chat_template))

    @classmethod
    def create(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: str = "auto",
        front_ends: Sequence[FrontEnd],
        position_rule: LengthRule,
        system: str = "",
        reads_question: bool = False,
        step_rule: LengthRule | None = None,
    ) -> LalmProcessor:
        """A processor for a base model's tokenizer, which is copied and not changed.

        Args:
            template: a name from chat_templates/, the path of a `.jinja` file, or "auto".
            position_rule: samples at the highest rate of the front ends -> audio positions `A`.
            system: the system turn of a conversation that brings none.
            reads_question: whether the model also takes the question of each clip (`question_inputs`).
            step_rule: encoder steps -> audio positions, where a clip's steps follow from what is heard (repeated units
                are left out); `position_rule` then gives the most there can be.

        Raises:
            ModelError: if the template does not exist or does not fit the tokenizer.
        """
        chosen = ChatTemplate.load(choose_template(tokenizer) if template == "auto" else template)
        return cls(
            copy.deepcopy(tokenizer),
            chat_template=chosen.source,
            template_name=chosen.name,
            front_ends=front_ends,
            position_rule=position_rule,
            system=system,
            reads_question=reads_question,
            step_rule=step_rule,
        )

    def listen_with(self, model: Any) -> None:
        """Lets `model` (a `LalmForConditionalGeneration`) count the positions of clips, which are then handed on as its
        encoder's steps. Needed with a `step_rule`; not saved."""
        self._model = model

    def _listen(self, waves: Sequence[np.ndarray]) -> tuple[list[int], dict[str, Any]]:
        """Audio positions `A` of clips, and the clips as the model takes them.

        Raises:
            ModelError: if they follow from what is heard, and no model listens.
        """
        if not waves:
            return [], {}
        audio = self.audio_inputs(waves)
        if self.step_rule is None:
            single = len(self.front_ends) == 1
            audio = {name: value[0] if single and isinstance(value, list) else value for name, value in audio.items()}
            return [self.num_positions(len(wave)) for wave in waves], audio
        if self._model is None:
            raise ModelError(
                "how many positions a clip takes follows from the units that are heard in it: call "
                "processor.listen_with(model) first"
            )
        import torch

        device = self._model.device
        on_device = {
            name: [item.to(device) for item in value] if isinstance(value, list) else value.to(device)
            for name, value in audio.items()
        }
        with torch.no_grad():
            states, num_steps = (item.cpu() for item in self._model.encode_audio(**on_device))
        counts = [self.step_rule.count(steps) for steps in num_steps.tolist()]
        return counts, {"audio_states": states, "audio_state_lengths": num_steps}

    def _assembler(self, template: ChatTemplate) -> PromptAssembler:
        return PromptAssembler(self.tokenizer, template, audio_token_id=self.audio_token_id, system=self.system)

    @property
    def sampling_rate(self) -> int:
        """Rate in hertz that waveforms are given at: the highest that a front end wants."""
        return max(front_end.sample_rate_hz for front_end in self.front_ends)

    def num_positions(self, num_samples: int) -> int:
        """Audio positions `A` of a clip of `num_samples` at `sampling_rate`; with a `step_rule`, the most."""
        return self.position_rule.count(num_samples)

    @property
    def stop_token_ids(self) -> list[int]:
        """Ids that end an answer: the template's end token and the tokenizer's own."""
        eos = self.tokenizer.eos_token_id
        end = self.prompts.end_token_id
        return [end] if eos is None or eos == end else [end, eos]

    @property
    def model_input_names(self) -> list[str]:
        """Keys of what `__call__` returns."""
        return ["input_ids", "attention_mask", "input_features", "feature_lengths", "chunk_counts"]

    def encode_turns(
        self,
        turns: Sequence[Turn],
        num_positions: Sequence[int],
        add_generation_prompt: bool = False,
        max_text_tokens: int | None = None,
        train_on_inputs: bool = False,
    ) -> Encoded:
        """Ids and labels of one conversation; the assembler of training, evaluation and chat.

        Args:
            num_positions: audio positions `A` of each clip, in order.
            add_generation_prompt: end where the model's answer begins.
            max_text_tokens: most ids that are not audio; the text of the closing answer is shortened to it.
            train_on_inputs: also supervise what is not the model's.

        Raises:
            DataError: if clips and placeholders differ in number, a clip has no positions, or the prompt leaves no
                room for an answer.
        """
        return self.prompts.encode(
            place_clips(turns, len(num_positions)),
            num_positions,
            add_generation_prompt=add_generation_prompt,
            max_text_tokens=max_text_tokens,
            train_on_inputs=train_on_inputs,
        )

    def audio_inputs(self, waveforms: Sequence[np.ndarray]) -> dict[str, Any]:
        """Features of clips `[S]` at `sampling_rate`, as the model takes them.

        Returns:
            `input_features`: for each encoder `[N, M, F]`, padded with zeros to its longest chunk.
            `feature_lengths`: for each encoder `[N]`, frames that belong to the clip.
            `chunk_counts`: chunks of each clip `[num_clips]`; a list of one for each encoder where they differ.
        """
        return features_of(self.front_ends, waveforms, self.sampling_rate)

    def question_inputs(self, questions: Sequence[Sequence[int]]) -> dict[str, Any]:
        """The question of each clip (`Encoded.questions`, clip after clip) as a model takes it that reads questions.

        Returns:
            `question_ids` `[clips, K]` and `question_lengths` `[clips]`; nothing for any other model, or no clips.
        """
        if not self.reads_question or not questions:
            return {}
        import torch

        lengths = torch.tensor([len(question) for question in questions])
        ids = torch.zeros(len(questions), max(1, int(lengths.max())), dtype=torch.long)
        for row, question in zip(ids, questions, strict=True):
            row[: len(question)] = torch.tensor(question)
        return {"question_ids": ids, "question_lengths": lengths}

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        audio: Any = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
        padding_side: str = "left",
        **others: Any,
    ) -> BatchFeature:
        """Rendered prompts and their clips -> model inputs, one row a prompt.

        Args:
            text: prompts in which special tokens count and every clip has its "<audio>" (or "<|audio|>").
            audio: a clip, a list of clips, or a list of lists; each a path or an array `[S]` or `[channels, S]`.
            sampling_rate: rate in hertz of the arrays; they cannot be read without it.

        Raises:
            AudioError: if a clip cannot be read, or an array comes without its rate.
            DataError: if clips and placeholders differ in number.
        """
        _refuse(others, return_tensors)
        texts = [text] if isinstance(text, str) else list(text or ())
        clips = sort_clips(audio, texts)
        waves = [[read_clip(clip, sampling_rate, self.sampling_rate) for clip in row] for row in clips]
        counts, audio_inputs = self._listen([wave for of_row in waves for wave in of_row])
        waiting = iter(counts)
        rows = [
            self.prompts.encode_markup(prompt, [next(waiting) for _ in of_row])
            for prompt, of_row in zip(texts, waves, strict=True)
        ]
        return self._batch(rows, counts, audio_inputs, padding_side)

    def apply_chat_template(  # type: ignore[override]  # tools, videos and slow tokenizers have no place here
        self,
        conversation: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str = "pt",
        return_assistant_tokens_mask: bool = False,
        sampling_rate: int | None = None,
        padding_side: str = "left",
        processor_kwargs: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Any:
        """One conversation, or a list of them, in the form that transformers' chat models take.

        Content is a string or a list of parts: `{"type": "text", "text": ...}` and `{"type": "audio", "path": FILE}`,
        or `"audio": ARRAY` with its rate in hertz as `sampling_rate`. What is written in a text is never markup.

        Returns:
            The rendered text; with `tokenize=True` the ids `[B, L]`, and with `return_dict=True` all model inputs.

        Raises:
            AudioError: if a clip cannot be read, is given by its URL, or an array comes without its rate.
            DataError: if a part is of another kind.
        """
        options = {"sampling_rate": sampling_rate, "padding_side": padding_side, **(processor_kwargs or {})}
        sampling_rate, padding_side = options.pop("sampling_rate"), options.pop("padding_side")
        _refuse({**others, **options}, return_tensors)
        conversations, is_batch = read_conversations(conversation)
        prompts = self.prompts
        if chat_template is not None and chat_template != self.chat_template:
            prompts = self._assembler(ChatTemplate("given", chat_template))
        if not tokenize:
            texts = [
                prompts.text(messages, add_generation_prompt=add_generation_prompt) for messages, _ in conversations
            ]
            return texts if is_batch else texts[0]
        waves = [[read_clip(clip, sampling_rate, self.sampling_rate) for clip in clips] for _, clips in conversations]
        counts, audio = self._listen([wave for of_row in waves for wave in of_row])
        waiting = iter(counts)
        rows = [
            prompts.encode(messages, [next(waiting) for _ in clips], add_generation_prompt=add_generation_prompt)
            for messages, clips in conversations
        ]
        inputs = self._batch(rows, counts, audio, padding_side, with_mask=return_assistant_tokens_mask)
        return inputs if return_dict else inputs["input_ids"]

    def _batch(
        self,
        rows: Sequence[Encoded],
        counts: Sequence[int],
        audio: Mapping[str, Any],
        padding_side: str,
        *,
        with_mask: bool = False,
    ) -> BatchFeature:
        import torch

        length = max((len(row.input_ids) for row in rows), default=0)
        input_ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros(len(rows), length, dtype=torch.long)
        assistant_masks = torch.zeros(len(rows), length, dtype=torch.long)
        for number, row in enumerate(rows):
            start = length - len(row.input_ids) if padding_side == "left" else 0
            span = slice(start, start + len(row.input_ids))
            input_ids[number, span] = torch.tensor(row.input_ids)
            attention_mask[number, span] = 1
            assistant_masks[number, span] = torch.tensor([int(label != IGNORED) for label in row.labels])
        data: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask} if rows else {}
        if with_mask:
            data["assistant_masks"] = assistant_masks
        if counts:
            data |= audio
            data |= self._questions_of(rows, len(counts))
        return BatchFeature(data)

    def _questions_of(self, rows: Sequence[Encoded], num_clips: int) -> dict[str, Any]:
        questions = [question for row in rows for question in row.questions]
        if self.reads_question and len(questions) != num_clips:
            raise DataError(
                "this model reads the question of each clip, which a rendered prompt does not tell. Give the "
                "conversation to apply_chat_template(..., tokenize=True, return_dict=True)."
            )
        return self.question_inputs(questions)

    def to_dict(self) -> dict[str, Any]:
        """What `processor_config.json` holds."""
        return {
            "processor_class": type(self).__name__,
            "template_name": self.template_name,
            "front_ends": [front_end.model_dump(mode="json") for front_end in self.front_ends],
            "position_rule": self.position_rule.model_dump(mode="json"),
            "system": self.system,
            "reads_question": self.reads_question,
            "step_rule": self.step_rule and self.step_rule.model_dump(mode="json"),
        }


def _prepare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> int:
    """Adds the audio token if it is missing and names a padding token; returns the audio token's id."""
    if AUDIO_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([AUDIO_TOKEN], special_tokens=True)
    if tokenizer.pad_token_id is None:
        vocabulary = tokenizer.get_vocab()
        found = [token for token in _PAD_TOKENS if token in vocabulary]
        tokenizer.pad_token = found[0] if found else tokenizer.eos_token
    return tokenizer.get_vocab()[AUDIO_TOKEN]


def _refuse(others: Mapping[str, Any], return_tensors: str | None) -> None:
    """Lets options of transformers through that would change nothing here; no other is lost silently."""
    harmless = {
        "padding": True,
        "add_special_tokens": False,
        "continue_final_message": False,
        "return_attention_mask": True,
    }
    unknown = [name for name, value in others.items() if value is not None and harmless.get(name) is not value]
    if unknown:
        raise TypeError(f"LalmProcessor does not take {', '.join(sorted(unknown))}")
    if str(return_tensors) not in ("pt", "auto", "None"):
        raise TypeError(f"LalmProcessor returns PyTorch tensors only, return_tensors={return_tensors!r} was asked for")
