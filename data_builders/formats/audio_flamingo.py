"""Audio Flamingo: a manifest of split, split_path, flamingo_task, total_num and `data`, an object of numbered rows.

A clip is `split_path/name`. Written, `split_path` is empty and names are whole.
"""

from __future__ import annotations

from data_builders.formats.base import SPLITS, Format, Hints, Row, Values, first_clip, question_answer
from lalm.data.records import Record


def read(row: Row, hints: Hints) -> Values:
    folder, task, split = (hints.header.get(key) for key in ("split_path", "flamingo_task", "split"))
    name = row.need("name")
    value = {
        "audio": [f"{folder.rstrip('/')}/{name}" if isinstance(folder, str) and folder not in ("", ".") else name],
        "turns": question_answer(row.need("prompt"), row.need("output")),
        "task": task if isinstance(task, str) and task else "qa",
        "split": SPLITS.get(split, "train") if isinstance(split, str) else "train",
    }
    return {**value, "id": f"{split}-{hints.key}"} if hints.key else value


def write(record: Record) -> Values:
    return {"name": first_clip(record), "prompt": record.question, "output": record.answer or ""}


def header(record: Record) -> Values:
    split = "val" if record.split == "validation" else record.split
    return {"split": split, "split_path": "", "flamingo_task": record.task}


AUDIO_FLAMINGO = Format(
    "audio_flamingo",
    "training of Audio Flamingo",
    "json",
    "one clip, one question, its answer; task and split of the first row for all",
    "github.com/NVIDIA/audio-flamingo, its dataset manifests",
    read,
    write,
    rows_key="data",
    keyed=True,
    header=header,
)
