"""SALMONN: an object with `annotation`: path, text, task, an optional question Q, and clips to append (expand_wav).

Without Q the question is drawn at training time by the task; here it is the one below.
"""

from __future__ import annotations

from data_builders.formats.base import Format, Hints, Row, Values, first_clip, question_answer
from lalm.data.records import Record

QUESTIONS = {
    "asr": "Write down what is said.",
    "audiocaption": "Describe the sounds of this clip.",
    "gender_recognition": "Is the speaker a man or a woman?",
    "emotion_recognition": "Which emotion does the speaker show?",
    "phone_recognition": "Write down the phonemes of what is said.",
    "music_description": "Describe this music.",
}
OTHER = "Do what this task asks of the clip: {}."


def read(row: Row, hints: Hints) -> Values:
    task = row.get("task", str, "qa")
    question = row.need("Q") if "Q" in row else QUESTIONS.get(task, OTHER.format(task))
    more = row.names("expand_wav") if row.values.get("expand_wav") else []
    return {
        "audio": [row.need("path"), *more],
        "turns": question_answer(question, row.need("text")),
        "task": task,
        "answer_type": "transcript" if task == "asr" else "open",
        "split": hints.split,
    }


def write(record: Record) -> Values:
    values: Values = {"path": first_clip(record), "text": record.answer or "", "task": record.task}
    if record.question != QUESTIONS.get(record.task, OTHER.format(record.task)):
        values["Q"] = record.question
    if len(record.audio) > 1:
        values["expand_wav"] = list(record.audio[1:])
    return values


SALMONN = Format(
    "salmonn",
    "training of SALMONN",
    "json",
    "any number of clips, one question, its answer, task",
    "github.com/bytedance/SALMONN, its dataset class",
    read,
    write,
    rows_key="annotation",
)
