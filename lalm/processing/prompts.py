"""The one place where an input is assembled: training, evaluation, scoring and chat all get their ids here.

The template's segments are tokenised one by one and their ids concatenated. So labels follow spans of text, never ids
or lengths, no token spans the border between a prompt and its answer, and the ids of a chat prompt are a prefix of the
ids that the same conversation has in training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from lalm.data.records import AUDIO_PLACEHOLDER, Turn
from lalm.errors import DataError, ModelError
from lalm.processing.templates import AUDIO_TOKEN, ChatTemplate, Clip, Message, Segment
from lalm.processing.tokens import PieceTokenizer

IGNORED = -100
"""The label of a position without loss."""

_PLACEHOLDERS = re.compile(f"({re.escape(AUDIO_PLACEHOLDER)}|{re.escape(AUDIO_TOKEN)})")


@dataclass(frozen=True)
class Encoded:
    """One conversation as the decoder reads it; all positions count, text `L` and audio `A`.

    `labels[i]` is `input_ids[i]` where it is supervised and -100 elsewhere (the model shifts them). `audio_spans` holds
    start and end of each clip. `truncated`: the closing answer lost its tail. `questions` holds the ids of the text of
    the turn that each clip stands in; none where the roles are not known.
    """

    input_ids: list[int]
    labels: list[int]
    audio_spans: list[tuple[int, int]]
    truncated: bool
    num_supervised: int
    questions: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class _Piece:
    ids: list[int]
    turn: int | None = None
    supervised: bool = False
    is_audio: bool = False
    is_closing_answer: bool = False


class PromptAssembler:
    """A tokenizer, a chat template and the default system turn, joined."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, *, audio_token_id: int, system: str = ""
    ):
        """Checks that they fit.

        Raises:
            ModelError: if the template's answers do not end with one special token of the tokenizer.
        """
        self.template = template
        self.system = system
        self.audio_token_id = audio_token_id
        self._tokens = PieceTokenizer(tokenizer)
        self._eos_token = tokenizer.eos_token or ""
        self.bos_token_id: int | None = tokenizer.bos_token_id if self._tokens.uses_bos() else None
        self._bos_token = tokenizer.bos_token if self.bos_token_id is not None else ""
        self.end_token_id = self._find_end_token(tokenizer)

    def _find_end_token(self, tokenizer: PreTrainedTokenizerBase) -> int:
        segments = self.render((Message("user", ("a",)), Message("assistant", ("b",))))
        closing = next((segment for segment in reversed(segments) if segment.supervised), None)
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        ids = self._tokens.markup(closing.text) if closing is not None and closing.role is None else []
        if not ids or ids[-1] not in special:
            wanted = f"'{closing.text.strip()}'" if closing is not None and closing.role is None else "an end token"
            raise ModelError(
                f"language_model.template: '{self.template.name}' ends an answer with {wanted}, which is no special "
                "token of this tokenizer. Choose a template that fits the model, or 'auto'."
            )
        return ids[-1]

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> list[Segment]:
        """The conversation as segments of text."""
        return self.template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            bos_token=self._bos_token,
            eos_token=self._eos_token,
        )

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The conversation, with its default system turn, as transformers renders it."""
        segments = self.render(self.with_system(messages), add_generation_prompt=add_generation_prompt)
        return "".join(segment.text for segment in segments)

    def with_system(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation, opened by the default system turn if there is one and it brings none."""
        if self.system and (not messages or messages[0].role != "system"):
            return [Message("system", (self.system,)), *messages]
        return list(messages)

    def encode(
        self,
        messages: Sequence[Message],
        num_positions: Sequence[int],
        *,
        add_generation_prompt: bool = False,
        max_text_tokens: int | None = None,
        train_on_inputs: bool = False,
    ) -> Encoded:
        """Ids and labels of one conversation.

        Args:
            num_positions: audio positions `A` of each clip, in order.
            add_generation_prompt: end where the model's answer begins.
            max_text_tokens: most ids that are not audio. Only the text of the closing answer is ever shortened.
            train_on_inputs: supervise all text but the first token (the BOS token, where there is one).

        Raises:
            DataError: if clips and their places differ in number, a clip has no positions, or the prompt leaves no
                room for an answer.
        """
        messages = self.with_system(messages)
        segments = self.render(messages, add_generation_prompt=add_generation_prompt)
        closing = len(messages) - 1 if messages[-1].role == "assistant" else None
        pieces = list(self._tokenise(segments, num_positions, closing))
        truncated = False
        if max_text_tokens is not None:
            pieces, truncated = _truncate(pieces, max_text_tokens)
        questions = [
            [token for piece in pieces if piece.turn == turn for token in piece.ids]
            for turn, message in enumerate(messages)
            for part in message.parts
            if isinstance(part, Clip)
        ]
        return replace(self._join(pieces, truncated=truncated, train_on_inputs=train_on_inputs), questions=questions)

    def encode_markup(self, text: str, num_positions: Sequence[int]) -> Encoded:
        """Ids of a prompt that the caller has rendered already: special tokens and audio placeholders count in it.

        Raises:
            DataError: if clips and placeholders differ in number.
        """
        parts = [part for part in _PLACEHOLDERS.split(text) if part]
        segments = [Segment(part, is_audio=_PLACEHOLDERS.fullmatch(part) is not None) for part in parts]
        return self._join(list(self._tokenise(segments, num_positions, None)), truncated=False, train_on_inputs=False)

    def _tokenise(
        self, segments: Sequence[Segment], num_positions: Sequence[int], closing: int | None
    ) -> Iterator[_Piece]:
        num_places = sum(segment.is_audio for segment in segments)
        if num_places != len(num_positions):
            raise DataError(
                f"{num_places} places for audio in the conversation, but {len(num_positions)} clips are given"
            )
        counts = iter(num_positions)
        has_bos = self.bos_token_id is not None and _opens_with(segments, self._bos_token)
        if self.bos_token_id is not None and not has_bos:
            yield _Piece([self.bos_token_id])
        is_first = True
        for segment in _move_spaces(segments):
            if segment.is_audio:
                count = next(counts)
                if count < 1:
                    raise DataError(f"a clip gives {count} audio positions: it is too short to be heard")
                yield _Piece([self.audio_token_id] * count, is_audio=True)
            elif segment.role is None:
                yield _Piece(self._tokens.markup(segment.text, is_first), supervised=segment.supervised)
            else:
                ids = self._tokens.plain(segment.text, is_first)
                is_closing = segment.supervised and segment.turn == closing
                yield _Piece(ids, segment.turn, segment.supervised, is_closing_answer=is_closing)
            is_first = is_first and segment.is_audio and has_bos  # clips may stand before the start of the text

    def _join(self, pieces: Iterable[_Piece], *, truncated: bool, train_on_inputs: bool) -> Encoded:
        ids: list[int] = []
        labels: list[int] = []
        audio_spans = []
        for piece in pieces:
            if piece.is_audio:
                audio_spans.append((len(ids), len(ids) + len(piece.ids)))
            has_loss = piece.supervised or (train_on_inputs and not piece.is_audio)
            ids += piece.ids
            labels += piece.ids if has_loss else [IGNORED] * len(piece.ids)
        labels[:1] = [IGNORED] * len(labels[:1])  # nothing stands before it, whether it is a BOS token or text
        return Encoded(ids, labels, audio_spans, truncated, sum(label != IGNORED for label in labels))


def place_clips(turns: Sequence[Turn], num_clips: int) -> list[Message]:
    """Turns as messages: clips stand at their placeholders in user turns, or before the first user's text.

    Raises:
        DataError: if there are placeholders, but not as many as clips, or no user turn for the clips.
    """
    pieces = [turn.content.split(AUDIO_PLACEHOLDER) if turn.role == "user" else [turn.content] for turn in turns]
    num_placed = sum(len(texts) - 1 for texts in pieces)
    if num_placed not in (0, num_clips):
        raise DataError(f"{num_placed} {AUDIO_PLACEHOLDER} placeholders in the conversation for {num_clips} clips")
    messages = []
    num_waiting = num_clips - num_placed
    for turn, texts in zip(turns, pieces, strict=True):
        parts: list[str | Clip] = []
        if turn.role == "user":
            parts += [Clip()] * num_waiting
            num_waiting = 0
        for number, text in enumerate(texts):
            parts += [Clip()] if number else []
            parts += [text] if text else []
        messages.append(Message(turn.role, tuple(parts)))
    if num_waiting:
        raise DataError(f"{num_clips} clips, but the conversation has no user turn to put them in")
    return messages


def _truncate(pieces: list[_Piece], max_text_tokens: int) -> tuple[list[_Piece], bool]:
    """Takes the excess off the closing answer's text; the end token behind it stays."""
    num_text = sum(len(piece.ids) for piece in pieces if not piece.is_audio)
    excess = num_text - max_text_tokens
    if excess <= 0:
        return pieces, False
    place = max((i for i, piece in enumerate(pieces) if piece.is_closing_answer), default=None)
    num_answer = len(pieces[place].ids) if place is not None else 0
    if place is None or num_answer <= excess:
        raise DataError(
            f"the conversation has {num_text - num_answer} text tokens besides its closing answer, max_text_tokens is "
            f"{max_text_tokens}: no room for an answer. Shorten the prompt or raise max_text_tokens."
        )
    kept = pieces[place].ids[: num_answer - excess]
    return [*pieces[:place], replace(pieces[place], ids=kept), *pieces[place + 1 :]], True


def _move_spaces(segments: Sequence[Segment]) -> list[Segment]:
    """The space between markup and a text goes to the text, as in " Paris": most vocabularies spell words so."""
    moved: list[Segment] = []
    for segment in segments:
        before = moved[-1] if moved else None
        if (
            before is not None
            and before.role is None
            and not before.is_audio
            and segment.role is not None
            and before.supervised == segment.supervised
            and before.text.endswith(" ")
        ):
            moved[-1:] = [replace(before, text=before.text[:-1])] if len(before.text) > 1 else []
            segment = replace(segment, text=" " + segment.text)
        moved.append(segment)
    return moved


def _opens_with(segments: Sequence[Segment], text: str) -> bool:
    """Whether `text` comes first, clips aside: LTU's stand before the BOS token."""
    first = next((segment for segment in segments if not segment.is_audio), None)
    return first is not None and first.role is None and first.text.startswith(text)
