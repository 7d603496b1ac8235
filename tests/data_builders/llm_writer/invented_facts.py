"""Invented clips, and a writer whose rows follow from what it is shown of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from data_builders.llm_writer.facts import Facts, TimedEvent

LABELS = ("dog", "bell", "siren", "rain", "door", "piano")


def invented(number: int, **more: Any) -> Facts:
    """Clip `number`: two events with times and a caption that names the number."""
    first, second = LABELS[number % 6], LABELS[(number + 1 + number // 6 % 5) % 6]
    values: dict[str, Any] = {
        "id": f"clip{number:04d}",
        "audio": (f"clips/{number:04d}.wav",),
        "seconds": 6.0,
        "captions": (f"A {first} sounds before a {second}, take {number}.",),
        "events": (TimedEvent(label=first, onset=0.5, offset=1.5), TimedEvent(label=second, onset=2.0, offset=4.0)),
        "source": "invented",
        "licence": "CC0",
    }
    return Facts(**(values | more))


def written_pairs(body: dict[str, Any]) -> str:
    """The reply of a good writer to `open_aqa`: four pairs on the caption that the prompt shows."""
    caption = re.findall(r"- description: (.*)", body["messages"][1]["content"])[0]
    events = re.findall(r"- event: ([\w ]+)", body["messages"][1]["content"])
    pairs = [
        {
            "question": f"What could somebody learn from sound number {number}?",
            "answer": f"{caption} It is the {events[number % len(events)]} that tells, reason {number}.",
            "evidence": [caption],
        }
        for number in range(4)
    ]
    return json.dumps({"pairs": pairs})


def write_facts(path: Path, count: int) -> Path:
    """A file of `count` invented clips' facts."""
    path.write_text("".join(invented(n).model_dump_json() + "\n" for n in range(count)), encoding="utf-8")
    return path
