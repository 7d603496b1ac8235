"""LLaVA-style conversations: id, audio (a name or several) and turns from human and gpt with <audio> in the text."""

from __future__ import annotations

from data_builders.formats.base import FieldProblem, Format, Hints, Row, Values, tagged_turns
from lalm.data.records import Record

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
WRITTEN = {"user": "human", "assistant": "gpt", "system": "system"}


def turns_of(said: list, key: str) -> list[Values]:
    """The turns of `from` and `value`.

    Raises:
        FieldProblem: with the place of what is no such turn.
    """
    turns = []
    for place, item in enumerate(said, start=1):
        if not isinstance(item, dict) or item.get("from") not in SPEAKERS or not isinstance(item.get("value"), str):
            raise FieldProblem(f"{key}.{place}: needs `from` (one of {', '.join(SPEAKERS)}) and the text `value`")
        turns.append({"role": SPEAKERS[item["from"]], "content": item["value"]})
    return turns


def said_turns(turns: list[Values]) -> list[Values]:
    return [{"from": WRITTEN[turn["role"]], "value": turn["content"]} for turn in turns]


def read(row: Row, hints: Hints) -> Values:
    value = {
        "audio": row.names("audio") if row.values.get("audio") else [],
        "turns": turns_of(row.need("conversations", list), "conversations"),
        "split": hints.split,
    }
    return {**value, "id": str(row.need("id", (str, int)))} if "id" in row else value  # type: ignore[arg-type]


def write(record: Record) -> Values:
    values: Values = {"id": record.id, "conversations": said_turns(tagged_turns(record, "\n"))}
    if record.audio:
        values["audio"] = record.audio[0] if len(record.audio) == 1 else list(record.audio)
    return values


LLAVA = Format(
    "llava",
    "LLaVA-style conversations",
    "json",
    "id, any number of clips and turns, where a clip stands",
    "github.com/haotian-liu/LLaVA, with audio for image",
    read,
    write,
)
