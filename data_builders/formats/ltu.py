"""LTU, OpenAQA, OpenASQA, GAMA: a list of instruction, input, audio_id, dataset, task, output.

`input` is what the model reads after the instruction (OpenASQA's transcript); a row that has one comes back as it was.
"""

from __future__ import annotations

from data_builders.formats.base import Format, Hints, Row, Values, closed_type, first_clip, question_answer
from lalm.data.records import Record


def read(row: Row, hints: Hints) -> Values:
    heard = row.get("input", str, "")
    question, answer = row.need("instruction"), row.need("output")
    return {
        "audio": [row.need("audio_id")],
        "turns": question_answer(f"{question}\n{heard}" if heard else question, answer),
        "task": row.get("task", str, "qa"),
        "source": row.get("dataset", str, ""),
        "answer_type": closed_type(answer),
        "split": hints.split,
    }


def write(record: Record) -> Values:
    values: Values = {"instruction": record.question, "input": "", "audio_id": first_clip(record)}
    if record.source:
        values["dataset"] = record.source
    if record.task != "qa":
        values["task"] = record.task
    return {**values, "output": record.answer or ""}


_HOLDS = "one clip, one question, its answer, task, source"
_LAYOUT = "github.com/YuanGongND/ltu, data of the fine-tuning"

OPENAQA = Format("openaqa", "OpenAQA, OpenASQA (LTU)", "json", _HOLDS, _LAYOUT, read, write)
LTU = Format("ltu", "training of LTU and GAMA", "json", _HOLDS, _LAYOUT, read, write)
