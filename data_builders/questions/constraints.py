"""Questions that also say how to answer: JSON, bullet points, one word, capitals; and the checker of such answers.

The answer is the sounds of a scene in order; the constraint stands in the record's `meta.constraint`, and
`follows` says whether any reply obeys it, whatever it says otherwise.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

from data_builders.questions.base import Context, IllPosed, Question, Subject

KINDS = ("json_list", "json_count", "bullets", "numbered", "one_word", "capitals", "at_most_words")
BULLET, NUMBERED = re.compile(r"^[-*•] \S"), re.compile(r"^(\d+)[.)] \S")


def instruction(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The sounds of a scene, in a form that the question asks for."""
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    labels, kind = scene.labels, rng.choice(KINDS)
    if kind == "one_word":
        if " " in labels[0]:
            return IllPosed("the name of the first sound is more than one word")
        labels = labels[:1]
    constraint: dict[str, Any] = {"kind": kind}
    if kind == "bullets":
        constraint["number"] = len(labels)
    if kind == "at_most_words":
        constraint["number"] = sum(len(label.split()) for label in labels) + rng.randint(1, 4)
    return Question(
        "instruction",
        written(kind, labels),
        kind,
        {"number": str(constraint.get("number", ""))},
        meta={"constraint": constraint},
    )


def written(kind: str, labels: Sequence[str]) -> str:
    """The labels in the form of a constraint."""
    if kind == "json_list":
        return json.dumps(labels, ensure_ascii=False)
    if kind == "json_count":
        return json.dumps({"sounds": labels, "count": len(labels)}, ensure_ascii=False)
    if kind == "bullets":
        return "\n".join(f"- {label}" for label in labels)
    if kind == "numbered":
        return "\n".join(f"{number}. {label}" for number, label in enumerate(labels, start=1))
    return ", ".join(labels).upper() if kind == "capitals" else ", ".join(labels)


def follows(constraint: dict[str, Any], reply: str) -> bool:
    """Whether a reply obeys a constraint.

    Raises:
        ValueError: for a kind that is not known.
    """
    kind, lines = constraint["kind"], [line for line in reply.strip().splitlines() if line.strip()]
    if kind in ("json_list", "json_count"):
        try:
            value = json.loads(reply)
        except ValueError:
            return False
        if kind == "json_list":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        return (
            isinstance(value, dict)
            and set(value) == {"sounds", "count"}
            and isinstance(value["sounds"], list)
            and value["count"] == len(value["sounds"])
        )
    if kind == "bullets":
        return len(lines) == constraint["number"] and all(BULLET.match(line) for line in lines)
    if kind == "numbered":
        found = [NUMBERED.match(line) for line in lines]
        return bool(found) and [match and int(match.group(1)) for match in found] == list(range(1, len(lines) + 1))
    if kind == "one_word":
        return len(reply.split()) == 1
    if kind == "capitals":
        return bool(reply.strip()) and reply == reply.upper() and reply != reply.lower()
    if kind == "at_most_words":
        return 1 <= len(reply.split()) <= constraint["number"]
    raise ValueError(f"constraint: '{kind}' is not known. Accepted: {', '.join(KINDS)}.")
