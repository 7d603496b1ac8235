"""SLAM-LLM: lines of key, source, target, or of the multitask form key, task, path, target (`path` may be x.ark:17)."""

from __future__ import annotations

from data_builders.formats.base import Format, Hints, Row, Values, first_clip, question_answer
from lalm.data.records import Record

QUESTION = "Write down what is said."


def read(row: Row, hints: Hints) -> Values:
    task = row.get("task", str, "qa")
    asked = row.need("prompt") if "prompt" in row else QUESTION if task in ("qa", "ASR") else f"Task: {task}."
    return {
        "id": row.need("key"),
        "audio": [row.need("path" if "path" in row else "source")],
        "turns": question_answer(asked, row.need("target")),
        "task": task,
        "answer_type": "transcript" if asked == QUESTION else "open",
        "split": hints.split,
    }


def write(record: Record) -> Values:
    multitask = record.task != "qa"
    values: Values = {"key": record.id, "path" if multitask else "source": first_clip(record)}
    if multitask:
        values["task"] = record.task
    if record.question != (QUESTION if record.task in ("qa", "ASR") else f"Task: {record.task}."):
        values["prompt"] = record.question
    return {**values, "target": record.answer or ""}


SLAM_LLM = Format(
    "slam_llm",
    "training of SLAM-LLM",
    "jsonl",
    "id, one clip, one question (as `prompt`), its answer, task",
    "github.com/X-LANCE/SLAM-LLM, its speech and multitask dataset classes",
    read,
    write,
)
