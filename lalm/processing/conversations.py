"""Conversations in the form that transformers' users write them -> messages and their clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lalm.errors import AudioError, DataError
from lalm.processing.templates import Clip, Message


def read_conversations(conversation: Any) -> tuple[list[tuple[list[Message], list[Any]]], bool]:
    """(messages, clips) of each conversation, and whether a list of conversations was given.

    Raises:
        AudioError: if a clip is given by its URL.
        DataError: if a message or part is of another kind.
    """
    conversation = list(conversation)
    if not conversation:
        raise DataError("an empty conversation: give at least one message")
    is_batch = not isinstance(conversation[0], Mapping)
    return [_read_conversation(item) for item in (conversation if is_batch else [conversation])], is_batch


def _read_conversation(conversation: Sequence[Mapping[str, Any]]) -> tuple[list[Message], list[Any]]:
    messages: list[Message] = []
    clips: list[Any] = []
    for number, message in enumerate(conversation):
        role = message.get("role")
        if role not in ("system", "user", "assistant"):
            raise DataError(f"message {number}: role {role!r} is not one of system, user, assistant")
        content = message.get("content")
        parts = [content] if isinstance(content, str) else _read_parts(content, f"message {number}", clips)
        if role != "user" and Clip() in parts:
            raise DataError(f"message {number}: audio may stand in user messages only, not in one of the {role}'s")
        if role != "user":
            parts = ["".join(part for part in parts if isinstance(part, str))]
        messages.append(Message(role, tuple(parts)))
    return messages, clips


def _read_parts(content: Any, where: str, clips: list[Any]) -> list[str | Clip]:
    if not isinstance(content, (list, tuple)):
        raise DataError(f"{where}: content must be a string or a list of parts, not {type(content).__name__}")
    parts: list[str | Clip] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append(part["text"])
        elif kind == "audio":
            clips.append(_clip_of(part, where))
            parts.append(Clip())
        else:
            raise DataError(
                f"{where}: a part must be {{'type': 'text', 'text': ...}} or {{'type': 'audio', 'path': ...}}"
            )
    return parts


def _clip_of(part: Mapping[str, Any], where: str) -> Any:
    for key in ("path", "audio"):
        if part.get(key) is not None:
            return part[key]
    if part.get("url") is not None:
        raise AudioError(f"{where}: audio is not fetched from a URL ({part['url']}). Download it and give its 'path'.")
    raise AudioError(f"{where}: an audio part needs 'path' (a file) or 'audio' (an array)")
