"""ClothoAQA: file_name, QuestionText, answer, confidence; one row an annotator, three a question."""

from __future__ import annotations

from data_builders.formats.base import Format, Hints, Row, Values, closed_type, first_clip, question_answer
from lalm.data.records import Record


def read(row: Row, hints: Hints) -> Values:
    answer = row.need("answer")
    if "confidence" not in row:
        row.get("confidence", str, "")
    return {
        "audio": [row.need("file_name")],
        "turns": question_answer(row.need("QuestionText"), answer),
        "answer_type": closed_type(answer),
        "source": "clotho_aqa",
        "split": hints.split,
    }


def write(record: Record) -> Values:
    return {"file_name": first_clip(record), "QuestionText": record.question, "answer": record.answer or ""}


CLOTHO_AQA = Format(
    "clotho_aqa",
    "ClothoAQA",
    "csv",
    "one clip, one question, its answer",
    "zenodo.org/records/6473207, clotho_aqa_{train,val,test}.csv",
    read,
    write,
    columns=("file_name", "QuestionText", "answer", "confidence"),
)
