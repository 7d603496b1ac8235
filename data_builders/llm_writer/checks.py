"""What a written question or answer must not do. The filters of `lalm data filter` judge it before it is a row.

Each check gives a reason, or None. Reasons go back to the writer in the second ask, and into the sidecar of rejects
after it; `kind` is one of few texts, so that a funnel can count it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from data_builders.filters.grounding import Grounding
from data_builders.filters.phrases_filter import Phrases
from data_builders.llm_writer.facts import Facts
from lalm.data.records import AUDIO_PLACEHOLDER, Record, Turn

LEAST_QUESTION_WORDS = 3
MOST_COPIED = 0.8
"""An answer that gives back more than this share of its words from the question says nothing."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Reason:
    """Why something was not written. `place` says which piece of a reply: "pair 3"."""

    kind: str
    detail: str = ""
    place: str = ""

    def at(self, place: str) -> Reason:
        """The same reason, of one piece."""
        return Reason(self.kind, self.detail, place)

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return place + self.kind + (f" ({self.detail})" if self.detail else "")


def exchange_problem(question: str, answer: str, facts: Facts, *, follows: bool = False) -> Reason | None:
    """The first thing wrong with a question and its answer, the evidence aside.

    `follows`: the question follows another and may be as short as "Why?".
    """
    asked, answered = words_of(question), words_of(answer)
    if len(asked) < (1 if follows else LEAST_QUESTION_WORDS):
        return Reason("the question is too short", question.strip())
    if not answered:
        return Reason("the answer is empty")
    if len(answered) > 2 and sum(word in asked for word in answered) > MOST_COPIED * len(answered):
        return Reason("the answer repeats the question", answer.strip())
    return said_problem(question, answer, facts)


def said_problem(question: str, answer: str, facts: Facts) -> Reason | None:
    """A refusal, a leak of the prompt, a sound or a time that is not known of the clip."""
    if AUDIO_PLACEHOLDER in question + answer:
        return Reason(f"holds {AUDIO_PLACEHOLDER}, which is the clip's own place")
    turns = (Turn(role="user", content=question), Turn(role="assistant", content=answer))
    record = Record(id=facts.id, turns=turns, meta=facts.known())
    for judge in _judges():
        verdict = judge.judge(record)
        if not verdict.kept:
            return Reason(verdict.reason, str(verdict.note))
    return None


def unsupported(evidence: Iterable[str], facts: Facts, *, questions: bool = True) -> Reason | None:
    """Evidence that is not in the facts. It counts as there when its words stand in one line of them, in order."""
    pieces = [piece for piece in map(words_of, evidence) if piece]
    if not pieces:
        return Reason("names no evidence")
    known = [f" {' '.join(words_of(line))} " for line in facts.lines(questions=questions)]
    for piece in pieces:
        if not any(f" {' '.join(piece)} " in line for line in known):
            return Reason("its evidence is not known of the clip", " ".join(piece))
    return None


def words_of(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.casefold())


@cache
def _judges() -> tuple[Phrases, Grounding]:
    return Phrases(), Grounding()
