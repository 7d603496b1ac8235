"""AudioSetCaps: a CSV with the id of a clip and its three questions and answers, one conversation of three turns here.

A cell is an answer, or "Question: ... Answer: ...". Where only answers stand, the questions are the ones below.
"""

from __future__ import annotations

import re

from data_builders.formats.base import FieldProblem, Format, Hints, Row, Values, first_clip, question_answer
from lalm.data.records import Record

CELLS = ("Q&A captions 1", "Q&A captions 2", "Q&A captions 3")
QUESTIONS = (
    "Which sounds make up this audio?",
    "If somebody speaks, what can be said about the voice, the mood and the language?",
    "If there is music, which genre is it and which instruments play?",
)
ENDING = ".wav"
_CELL = re.compile(r"Question: (.*?) Answer: (.*)", re.DOTALL)


def read(row: Row, hints: Hints) -> Values:
    name = row.need("id")
    turns = []
    for key, question in zip(CELLS, QUESTIONS, strict=True):
        if (cell := row.get(key, str, "")).strip():
            found = _CELL.fullmatch(cell.strip())
            turns += question_answer(*found.groups()) if found else question_answer(question, cell)
    if not turns:
        raise FieldProblem(f"{CELLS[0]}: no question has an answer")
    return {"audio": [_clip(name)], "turns": turns, "task": "description", "source": "audiosetcaps", "id": name}


def write(record: Record) -> Values:
    spoken = [turn.content for turn in record.turns if turn.role != "system"]
    cells = [
        f"Question: {question} Answer: {answer}" for question, answer in zip(spoken[::2], spoken[1::2], strict=False)
    ]
    name = first_clip(record).removesuffix(ENDING)
    return {"id": name, **dict(zip(CELLS, [*cells, "", "", ""], strict=False))}


def _clip(name: str) -> str:
    return name if name.endswith(ENDING) else name + ENDING


AUDIOSETCAPS_QA = Format(
    "audiosetcaps_qa",
    "AudioSetCaps-QA",
    "csv",
    "one clip, up to three questions with answers",
    "huggingface.co/datasets/baijs/AudioSetCaps, by its card; names of the columns not checked",
    read,
    write,
    columns=("id", *CELLS),
)
