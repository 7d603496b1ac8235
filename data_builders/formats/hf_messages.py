"""HF messages: lines of `messages` whose content is a text, or a list of parts of type text and audio."""

from __future__ import annotations

from data_builders.formats.base import FieldProblem, Format, Hints, Row, Values, tagged_turns
from lalm.data.records import AUDIO_PLACEHOLDER, Record

CLIP_KEYS = ("path", "audio", "url")


def read(row: Row, hints: Hints) -> Values:
    audio: list[str] = []
    turns = []
    for place, item in enumerate(row.need("messages", list), start=1):
        if not isinstance(item, dict) or not isinstance(item.get("role"), str):
            raise FieldProblem(f"messages.{place}.role: is missing, or no text")
        content = item.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise FieldProblem(f"messages.{place}.content: must be a text or a list of parts")
        turns.append({"role": item["role"], "content": "".join(_part(part, audio, place) for part in parts)})
    return {"audio": audio, "turns": turns, "split": hints.split}


def write(record: Record) -> Values:
    names = iter(record.audio)
    messages = []
    for turn in tagged_turns(record, ""):
        parts: list[Values] = []
        for number, text in enumerate(turn["content"].split(AUDIO_PLACEHOLDER)):
            if number:
                parts.append({"type": "audio", "path": next(names)})
            if text:
                parts.append({"type": "text", "text": text})
        messages.append({"role": turn["role"], "content": parts})
    return {"messages": messages}


def _part(part: object, audio: list[str], place: int) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if isinstance(part, dict) and part.get("type") == "audio":
        name = next((part[key] for key in CLIP_KEYS if isinstance(part.get(key), str)), None)
        if name:
            audio.append(name)
            return AUDIO_PLACEHOLDER
    raise FieldProblem(f"messages.{place}.content: each part needs type text and `text`, or type audio and `path`")


HF_MESSAGES = Format(
    "hf_messages",
    "HF messages (transformers' chat templates)",
    "jsonl",
    "any number of clips and turns, where a clip stands",
    "huggingface.co/docs/transformers, chat templates with audio",
    read,
    write,
)
