"""SpeechInstruct: a prefix and one text of [Human] and [SpeechGPT] turns. Speech is in it as units, not as clips."""

from __future__ import annotations

import re

from data_builders.formats.base import FieldProblem, Format, Hints, Row, Values
from lalm.data.records import Record

_TURN = re.compile(r"\[Human\]: (.*?)<eoh>\s*(?:\[SpeechGPT\]: (.*?)(?:<eoa>|\Z))?\s*", re.DOTALL)


def read(row: Row, hints: Hints) -> Values:
    text, turns, at = row.need("plain_text"), [], 0
    if (prefix := row.get("prefix", str, "")).strip():
        turns.append({"role": "system", "content": prefix})
    while at < len(text):
        found = _TURN.match(text, at)
        if not found:
            raise FieldProblem(f"plain_text: no '[Human]: ... <eoh>' at character {at + 1}")
        turns.append({"role": "user", "content": found[1]})
        if found[2] and found[2].strip():
            turns.append({"role": "assistant", "content": found[2]})
        at = found.end()
    return {"turns": turns, "source": "speech_instruct", "split": hints.split}


def write(record: Record) -> Values:
    marks = {"user": "[Human]: {}<eoh>", "assistant": "[SpeechGPT]: {}<eoa>"}
    prefix = "".join(turn.content for turn in record.turns if turn.role == "system")
    text = " ".join(marks[turn.role].format(turn.content) for turn in record.turns if turn.role != "system")
    return {"prefix": prefix, "plain_text": text}


SPEECH_INSTRUCT = Format(
    "speech_instruct",
    "SpeechInstruct",
    "jsonl",
    "a system turn, any number of turns; no clips (units stay in the text)",
    "github.com/0nutation/SpeechGPT, data of the cross-modal stage",
    read,
    write,
)
