"""ms-swift: lines of `messages` with <audio> in the text, and `audios`."""

from __future__ import annotations

from data_builders.formats.base import FieldProblem, Format, Hints, Row, Values, tagged_turns
from lalm.data.records import Record


def read(row: Row, hints: Hints) -> Values:
    turns = []
    for place, item in enumerate(row.need("messages", list), start=1):
        if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in ("role", "content")):
            raise FieldProblem(f"messages.{place}: needs the texts `role` and `content`")
        turns.append({"role": item["role"], "content": item["content"]})
    return {"audio": row.names("audios") if row.values.get("audios") else [], "turns": turns, "split": hints.split}


def write(record: Record) -> Values:
    values: Values = {"messages": tagged_turns(record, "")}
    return {**values, "audios": list(record.audio)} if record.audio else values


MS_SWIFT = Format(
    "ms_swift",
    "training of ms-swift",
    "jsonl",
    "any number of clips and turns, where a clip stands",
    "swift.readthedocs.io, custom dataset",
    read,
    write,
)
