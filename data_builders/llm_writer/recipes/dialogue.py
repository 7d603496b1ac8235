"""A conversation of several turns about one clip, after Audio Dialogues (arXiv 2404.07616)."""

from __future__ import annotations

from pydantic import BaseModel, Field

from data_builders.llm_writer.asker import Asker, Checked, Row
from data_builders.llm_writer.checks import Reason, exchange_problem, unsupported, words_of
from data_builders.llm_writer.facts import Facts
from data_builders.llm_writer.recipes.base import WritingRecipe, exchange, needs_words

EXCHANGES = 3
_LEANS = {"it", "that", "this", "those", "they", "then", "also", "else"}


class Exchange(BaseModel):
    user: str
    assistant: str


class Dialogue(BaseModel):
    turns: list[Exchange] = Field(min_length=2)
    evidence: list[str] = Field(default_factory=list)


def check(reply: Dialogue, facts: Facts) -> Checked:
    """The whole conversation holds up, or none of it: later turns lean on earlier ones."""
    turns = reply.turns[:EXCHANGES]
    for number, turn in enumerate(turns, start=1):
        problem = exchange_problem(turn.user, turn.assistant, facts, follows=number > 1)
        if problem:
            return Checked([], [problem.at(f"turn {number}")])
    problem = _does_not_hang_together(turns) or unsupported(reply.evidence, facts)
    if problem:
        return Checked([], [problem])
    spoken = tuple(part for turn in turns for part in exchange(turn.user, turn.assistant))
    return Checked([Row(spoken, "1", "dialogue", meta={"evidence": reply.evidence})])


def _does_not_hang_together(turns: list[Exchange]) -> Reason | None:
    if leaning := sorted(_LEANS & set(words_of(turns[0].user)[:2])):
        return Reason("the first question leans on something before it", leaning[0])
    for kind, said in (
        ("a question is asked twice", [turn.user for turn in turns]),
        ("an answer is given twice", [turn.assistant for turn in turns]),
    ):
        if len({" ".join(words_of(text)) for text in said}) < len(turns):
            return Reason(kind)
    return None


async def _write(asker: Asker) -> list[Row]:
    return await asker.ask(
        "dialogue", Dialogue, lambda reply: check(reply, asker.facts), count=EXCHANGES, most=EXCHANGES
    )


RECIPE = WritingRecipe(
    name="dialogue",
    about="one conversation of three questions (Audio Dialogues)",
    prompt="dialogue",
    ill_posed=needs_words,
    write=_write,
    likely_tokens=300,
)
