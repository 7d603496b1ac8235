"""Complex reasoning over events aligned in time, after CompA-R (GAMA, arXiv 2406.11768)."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, Field

from data_builders.llm_writer.asker import Asker, Checked, Row
from data_builders.llm_writer.checks import Reason, exchange_problem, words_of
from data_builders.llm_writer.facts import Facts
from data_builders.llm_writer.recipes.base import WritingRecipe, exchange

PAIRS = 2


class ReasonedPair(BaseModel):
    question: str
    answer: str
    events: list[str] = Field(min_length=1)


class ReasonedPairs(BaseModel):
    pairs: list[ReasonedPair] = Field(min_length=1)


def ill_posed(facts: Facts) -> str:
    """At least two different events with times."""
    if len({event.label for event in facts.timed_events()}) < 2:
        return "fewer than two different events have times"
    return ""


def check(reply: ReasonedPairs, facts: Facts, most: int = PAIRS) -> Checked:
    """A pair holds up when it rests on two different events of the clip, and the answer speaks of both."""
    rows, reasons = [], []
    for number, pair in enumerate(reply.pairs[:most], start=1):
        problem = exchange_problem(pair.question, pair.answer, facts) or _misused(pair, facts)
        if problem:
            reasons.append(problem.at(f"pair {number}"))
            continue
        used = {_plain(label) for label in pair.events}
        # The aligned events: what an answer about order must agree with, with their times.
        meta = {"events": [event.model_dump() for event in facts.timed_events() if _plain(event.label) in used]}
        rows.append(Row(exchange(pair.question, pair.answer), str(number), "reasoning", meta=meta))
    return Checked(rows, reasons)


def _misused(pair: ReasonedPair, facts: Facts) -> Reason | None:
    """Events that the clip does not have, too few of them, or of which the answer does not speak."""
    known = {_plain(event.label): event.label for event in facts.timed_events()}
    used = {_plain(label) for label in pair.events}
    if foreign := sorted(used - set(known)):
        return Reason("rests on an event that the clip does not have", f"{foreign[0]}, of {', '.join(known.values())}")
    if len(used) < 2:
        return Reason("rests on fewer than two different events")
    spoken = _stems(words_of(pair.answer))
    unsaid = next((label for label in sorted(used) if not _stems(label.split()) & spoken), None)
    return Reason("the answer does not speak of its event", unsaid) if unsaid else None


def _plain(label: str) -> str:
    return " ".join(words_of(label))


def _stems(words: Iterable[str]) -> set[str]:
    """First four letters, so that "barking" speaks of "bark"."""
    return {word[:4] for word in words}


async def _write(asker: Asker) -> list[Row]:
    most = asker.pairs or PAIRS
    return await asker.ask(
        "reasoning", ReasonedPairs, lambda reply: check(reply, asker.facts, most), most=most, count=most
    )


RECIPE = WritingRecipe(
    name="reasoning",
    about="two questions that join several timed events (CompA-R)",
    prompt="reasoning",
    ill_posed=ill_posed,
    write=_write,
    likely_tokens=350,
)
