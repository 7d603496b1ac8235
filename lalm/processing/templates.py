"""Chat templates: ordinary transformers-compatible Jinja files, rendered into segments instead of one string.

A template sees a reference in place of every text that a person or a model wrote, and the text is put in only after
rendering. So nothing that stands in a text is ever mistaken for markup, and every segment knows whether it is the
template's or somebody's. What stands between `{% generation %}` and `{% endgeneration %}` is supervised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lalm.errors import DataError, ModelError
from lalm.resources import list_shipped, shipped

AUDIO_TOKEN = "<|audio|>"
"""What a template writes where a clip stands; the tokenizer has it as one special token."""

# Unicode noncharacters: no text may interchange them, and here they never meet a text anyway.
_TEXT_OPEN, _TEXT_CLOSE, _SUPERVISED_OPEN, _SUPERVISED_CLOSE = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
_MARKS = f"[{_TEXT_OPEN}-{_SUPERVISED_CLOSE}]"
_PIECES = re.compile(
    f"{_TEXT_OPEN}([0-9]+){_TEXT_CLOSE}|({_SUPERVISED_OPEN})|({_SUPERVISED_CLOSE})|({re.escape(AUDIO_TOKEN)})"
)


@dataclass(frozen=True)
class Clip:
    """The place of one clip in a message."""


@dataclass(frozen=True)
class Message:
    """One turn, its clips in their places among the pieces of its text."""

    role: str
    parts: tuple[str | Clip, ...]


@dataclass(frozen=True)
class Segment:
    """A run of rendered text of one kind.

    `role` is whose text it is ("system", "user", "assistant"), None where the template wrote it: only there may
    special tokens stand. `turn` is the index of the message that it belongs to, None for the template's.
    """

    text: str
    supervised: bool = False
    role: str | None = None
    turn: int | None = None
    is_audio: bool = False


class ChatTemplate:
    """One chat format."""

    def __init__(self, name: str, source: str):
        """Compiles the Jinja `source`; `name` is for messages.

        Raises:
            ModelError: if the source is no Jinja.
        """
        self.name = name
        self.source = source
        if re.search(_MARKS, source):
            raise ModelError(f"chat template '{name}': the characters U+FDD0 to U+FDD3 cannot be used in a template")
        try:
            self._compiled = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(f"chat template '{name}', line {error.lineno}: {error.message}") from error

    @classmethod
    def load(cls, name: str) -> ChatTemplate:
        """A shipped template by its name, or any other by the path of its `.jinja` file.

        Raises:
            ModelError: if there is none; the names that exist are listed.
        """
        if name.endswith(".jinja"):
            path = Path(name)
        elif name in template_names():
            path = shipped("chat_templates", f"{name}.jinja")
        else:
            names = ", ".join(template_names())
            raise ModelError(f"language_model.template: no chat template '{name}'. There are: {names}, auto.")
        try:
            return cls(path.stem, path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ModelError(f"{path}: this chat template cannot be read ({error})") from error

    def __reduce__(self) -> tuple[type[ChatTemplate], tuple[str, str]]:
        """Compiled Jinja cannot be pickled or copied; its source can."""
        return ChatTemplate, (self.name, self.source)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        bos_token: str = "",
        eos_token: str = "",
    ) -> list[Segment]:
        """The conversation as segments, in order; joined they are the text that transformers renders.

        Raises:
            DataError: if the template refuses the conversation.
            ModelError: if the template loses, repeats or changes a text or a clip.
        """
        texts: list[tuple[int, str]] = []
        shown = [_show(message, turn, texts) for turn, message in enumerate(messages)]
        try:
            rendered = self._compiled.render(
                messages=shown,
                add_generation_prompt=add_generation_prompt,
                bos_token=bos_token,
                eos_token=eos_token,
                tools=None,
                documents=None,
            )
        except jinja2.TemplateError as error:
            raise DataError(f"the chat template '{self.name}' refuses this conversation: {error}") from error
        segments = self._split(rendered, messages, texts)
        num_clips = sum(isinstance(part, Clip) for message in messages for part in message.parts)
        written = sum(segment.is_audio for segment in segments)
        if written != num_clips:
            raise ModelError(
                f"chat template '{self.name}': writes {written} clips of a conversation that has {num_clips}"
            )
        return segments

    def _split(self, rendered: str, messages: Sequence[Message], texts: list[tuple[int, str]]) -> list[Segment]:
        segments: list[Segment] = []
        seen: list[int] = []
        supervised, position = False, 0
        for match in _PIECES.finditer(rendered):
            self._add_own(segments, rendered[position : match.start()], supervised)
            position = match.end()
            number, opens, closes, audio = match.groups()
            if number is not None:
                turn, text = texts[int(number)]
                seen.append(int(number))
                segments.append(Segment(text, supervised, messages[turn].role, turn))
            elif audio:
                segments.append(Segment(AUDIO_TOKEN, False, is_audio=True))
            else:
                supervised = bool(opens) and not closes
        self._add_own(segments, rendered[position:], supervised)
        if sorted(seen) != list(range(len(texts))):
            lost = sorted(set(range(len(texts))) - set(seen))
            raise ModelError(
                f"chat template '{self.name}': it must write every text once and unchanged, but it "
                + (f"leaves out {texts[lost[0]][1]!r}" if lost else "repeats one")
            )
        return segments

    def _add_own(self, segments: list[Segment], text: str, supervised: bool) -> None:
        if re.search(_MARKS, text):
            raise ModelError(
                f"chat template '{self.name}': it cuts or changes the text of a turn; only trimming is allowed"
            )
        if text:
            segments.append(Segment(text, supervised))


def template_names() -> list[str]:
    """Names of the shipped templates."""
    return [Path(name).stem for name in list_shipped("chat_templates")]


def _show(message: Message, turn: int, texts: list[tuple[int, str]]) -> dict[str, Any]:
    """The message as the template sees it. White space around a text stays visible, so that templates may trim it."""
    parts = []
    for part in message.parts:
        if isinstance(part, Clip):
            parts.append({"type": "audio"})
            continue
        core = part.strip()
        if core:
            start = part.index(core)
            texts.append((turn, core))
            core = f"{_TEXT_OPEN}{len(texts) - 1}{_TEXT_CLOSE}"
            part = part[:start] + core + part[start + len(texts[-1][1]) :]
        parts.append({"type": "text", "text": part})
    has_clips = any(part["type"] == "audio" for part in parts)
    content = parts if has_clips else "".join(part["text"] for part in parts)
    return {"role": message.role, "content": content}


class _Generation(Extension):
    """`{% generation %}`: the tag that transformers' templates put around what an assistant writes."""

    tags = {"generation"}  # noqa: RUF012 (Jinja declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return [_mark(_SUPERVISED_OPEN, line), *body, _mark(_SUPERVISED_CLOSE, line)]


def _mark(character: str, line: int) -> jinja2.nodes.Node:
    return jinja2.nodes.Output([jinja2.nodes.TemplateData(character)], lineno=line)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
