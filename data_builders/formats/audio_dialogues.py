"""Audio Dialogues: an id and a `dialogue` of user and assistant; a comparison names two clips under `audio`.

Where no `audio` stands the id names the clip.
"""

from __future__ import annotations

from data_builders.formats.base import FieldProblem, Format, Hints, Row, Values
from lalm.data.records import Record

ENDING = ".wav"


def read(row: Row, hints: Hints) -> Values:
    name = row.need("id")
    turns = []
    for place, pair in enumerate(row.need("dialogue", list), start=1):
        if not isinstance(pair, dict) or not isinstance(pair.get("user"), str):
            raise FieldProblem(f"dialogue.{place}.user: is missing, or no text")
        turns.append({"role": "user", "content": pair["user"]})
        if isinstance(pair.get("assistant"), str):
            turns.append({"role": "assistant", "content": pair["assistant"]})
    audio = row.names("audio") if "audio" in row else [name if name.endswith(ENDING) else name + ENDING]
    return {
        "id": name,
        "audio": audio,
        "turns": turns,
        "task": "comparison" if len(audio) > 1 else "dialogue",
        "source": "audio_dialogues",
        "split": hints.split,
    }


def write(record: Record) -> Values:
    dialogue: list[Values] = []
    for turn in record.turns:
        if turn.role == "user":
            dialogue.append({"user": turn.content})
        elif turn.role == "assistant":
            dialogue[-1]["assistant"] = turn.content
    values: Values = {"id": record.id, "dialogue": dialogue}
    if record.audio != (record.id if record.id.endswith(ENDING) else record.id + ENDING,):
        values["audio"] = list(record.audio)
    return values


AUDIO_DIALOGUES = Format(
    "audio_dialogues",
    "Audio Dialogues",
    "json",
    "id, any number of clips and turns; no system turn",
    "audiodialogues.github.io, from its description; key of the clips not checked",
    read,
    write,
)
