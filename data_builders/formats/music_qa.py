"""MusicQA: an audio_name and a `conversation` of human and gpt."""

from __future__ import annotations

from data_builders.formats.base import Format, Hints, Row, Values, first_clip
from data_builders.formats.llava import said_turns, turns_of
from lalm.data.records import Record


def read(row: Row, hints: Hints) -> Values:
    return {
        "audio": [row.need("audio_name")],
        "turns": turns_of(row.need("conversation", list), "conversation"),
        "task": "music",
        "source": "music_qa",
        "split": hints.split,
    }


def write(record: Record) -> Values:
    return {"audio_name": first_clip(record), "conversation": said_turns([turn.model_dump() for turn in record.turns])}


MUSIC_QA = Format(
    "music_qa",
    "MusicQA",
    "json",
    "one clip, any number of turns",
    "huggingface.co/datasets/mu-llama/MusicQA",
    read,
    write,
)
