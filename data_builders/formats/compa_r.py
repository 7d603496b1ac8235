"""CompA-R: the rows of LTU as GAMA reads them, or a mirror's question, answer, audio_filename, metadata."""

from __future__ import annotations

from data_builders.formats import ltu
from data_builders.formats.base import Format, Hints, Row, Values, question_answer
from lalm.data.records import Record


def read(row: Row, hints: Hints) -> Values:
    if "audio_filename" in row and "instruction" not in row:
        return {
            "audio": [row.need("audio_filename")],
            "turns": question_answer(row.need("question"), row.need("answer")),
            "task": "reasoning",
            "source": "compa_r",
            "split": hints.split,
        }
    value = ltu.read(row, hints)
    return {**value, "answer_type": "open", "task": row.get("task", str, "reasoning")}


def write(record: Record) -> Values:
    values = ltu.write(record)
    values.pop("task", None)
    return {**values, "task": record.task} if record.task != "reasoning" else values


COMPA_R = Format(
    "compa_r",
    "CompA-R",
    "json",
    "one clip, one question, its answer, task, source",
    "github.com/Sreyan88/GAMA, data of the reasoning stage",
    read,
    write,
)
