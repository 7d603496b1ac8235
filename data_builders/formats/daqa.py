"""DAQA: an object with `info` and `questions`; the template of a question is its task."""

from __future__ import annotations

from data_builders.formats.base import SPLITS, Format, Hints, Row, Values, closed_type, first_clip, question_answer
from lalm.data.records import Record


def read(row: Row, hints: Hints) -> Values:
    answer = row.need("answer")
    if row.values.get("answer_token") == answer:
        row.get("answer_token", str)
    split = row.get("set", str, "train")
    return {
        "audio": [row.need("audio_filename")],
        "turns": question_answer(row.need("question"), answer),
        "task": row.get("question_template", str, "qa"),
        "answer_type": closed_type(answer),
        "split": SPLITS.get(split, "train"),
    }


def write(record: Record) -> Values:
    return {
        "set": "val" if record.split == "validation" else record.split,
        "audio_filename": first_clip(record),
        "question_template": record.task,
        "question": record.question,
        "answer": record.answer or "",
        "answer_token": record.answer or "",
    }


DAQA = Format(
    "daqa",
    "DAQA",
    "json",
    "one clip, one question, its answer, task (the template), split",
    "github.com/facebookresearch/daqa, what its generator writes",
    read,
    write,
    rows_key="questions",
)
