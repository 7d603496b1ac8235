"""Complex reasoning over events aligned in time, after CompA-R (GAMA, arXiv 2406.11768)."""

from __future__ import annotations

from pydantic import BaseModel, Field

from data_builders.llm_writer.asker import Asker, Checked, Row
from data_builders.llm_writer.checks import pair_problem, words_of
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


def check(reply: ReasonedPairs, facts: Facts) -> Checked:
    """A pair holds up when it rests on two different events of the clip, and the answer speaks of both."""
    known = {" ".join(words_of(event.label)): event.label for event in facts.events}
    rows, reasons = [], []
    for number, pair in enumerate(reply.pairs[:PAIRS], start=1):
        used = {" ".join(words_of(label)) for label in pair.events}
        problem = pair_problem(pair.question, pair.answer, facts)
        if not problem and (foreign := sorted(used - set(known))):
            problem = f"'{foreign[0]}' is no event of the clip; its events are {', '.join(known.values())}"
        if not problem and len(used) < 2:
            problem = "it rests on fewer than two different events"
        if not problem:
            spoken = set(words_of(pair.answer))
            unsaid = [label for label in sorted(used) if not _stems(label.split()) & _stems(spoken)]
            problem = f"the answer does not speak of '{unsaid[0]}'" if unsaid else ""
        if problem:
            reasons.append(f"pair {number}: {problem}")
        else:
            meta = {"events": sorted(known[label] for label in used)}
            rows.append(Row(exchange(pair.question, pair.answer), str(number), "reasoning", meta=meta))
    return Checked(rows, reasons)


def _stems(words) -> set[str]:
    """First four letters, so that "barking" speaks of "bark"."""
    return {word[:4] for word in words}


async def _write(asker: Asker) -> list[Row]:
    return await asker.ask("reasoning", ReasonedPairs, lambda reply: check(reply, asker.facts), count=PAIRS)


RECIPE = WritingRecipe(
    name="reasoning",
    about="two questions that join several timed events (CompA-R)",
    prompt="reasoning",
    ill_posed=ill_posed,
    write=_write,
    likely_tokens=350,
)
