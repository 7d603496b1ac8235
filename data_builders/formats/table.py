"""A CSV of one's own: file, question, answer, and if wanted id, task, split, choices, source, licence.

Several files, or choices, in one cell are separated by |.
"""

from __future__ import annotations

from data_builders.formats.base import Format, Hints, Row, Values, question_answer
from lalm.data.records import Record

OPTIONAL = ("id", "task", "split", "source", "licence")


def read(row: Row, hints: Hints) -> Values:
    value: Values = {
        "audio": [name.strip() for name in row.get("file", str, "").split("|") if name.strip()],
        "turns": question_answer(row.need("question"), row.need("answer")),
    }
    value |= {key: text for key in OPTIONAL if (text := row.get(key, str, ""))}
    if choices := row.get("choices", str, ""):
        value["choices"] = [choice.strip() for choice in choices.split("|")]
    value.setdefault("id", f"{hints.stem}-{hints.number + 1}")
    return value


def write(record: Record) -> Values:
    values = {"file": "|".join(record.audio), "question": record.question, "answer": record.answer or ""}
    values |= {key: text for key in OPTIONAL if (text := getattr(record, key))}
    return {**values, "choices": "|".join(record.choices)} if record.choices else values


TABLE = Format(
    "table",
    "a CSV of your own",
    "csv",
    "clips, one question, its answer; id, task, split, choices, source, licence",
    "this page",
    read,
    write,
    columns=("file", "question", "answer"),
)
