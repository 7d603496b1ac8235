"""What every writing recipe is, and the form of reply that several share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from data_builders.llm_writer.asker import Asker, Checked, Row
from data_builders.llm_writer.checks import Reason, exchange_problem, unsupported, words_of
from data_builders.llm_writer.facts import Facts
from lalm.data.records import Turn

Need = Literal["hear", "similarity", "speak"]


@dataclass(frozen=True)
class WritingRecipe:
    """One way of writing. `ill_posed` gives the reason why it cannot be asked of a clip, or an empty text."""

    name: str
    about: str
    prompt: str
    ill_posed: Callable[[Facts], str]
    write: Callable[[Asker], Awaitable[list[Row]]]
    needs: tuple[Need, ...] = ()
    likely_tokens: int = 300
    """What a reply usually has, for the estimate of a dry run."""


class Pair(BaseModel):
    """A question, its answer, and the words of the facts that the answer rests on."""

    question: str
    answer: str
    evidence: list[str] = Field(default_factory=list)


class Pairs(BaseModel):
    """The reply that holds several."""

    pairs: list[Pair] = Field(min_length=1)


def exchange(question: str, answer: str) -> tuple[Turn, ...]:
    """A user turn and an assistant turn."""
    return (Turn(role="user", content=question.strip()), Turn(role="assistant", content=answer.strip()))


def checked_pairs(pairs: list[Pair], facts: Facts, task: str, most: int) -> Checked:
    """The pairs that hold up, at most `most`, each question once."""
    rows: list[Row] = []
    reasons: list[Reason] = []
    asked: set[str] = set()
    for number, pair in enumerate(pairs[:most], start=1):
        same = " ".join(words_of(pair.question))
        problem = exchange_problem(pair.question, pair.answer, facts) or unsupported(pair.evidence, facts)
        if problem is None and same in asked:
            problem = Reason("a question is asked twice", pair.question)
        if problem:
            reasons.append(problem.at(f"pair {number}"))
            continue
        asked.add(same)
        row = Row(exchange(pair.question, pair.answer), str(number), task, meta={"evidence": pair.evidence})
        rows.append(row)
    return Checked(rows, reasons)


def needs_words(facts: Facts) -> str:
    """Ill-posed where nothing is known that could be written about."""
    return "" if facts.lines() else "nothing is known of the clip"
