"""A conversation of several turns about one clip, after Audio Dialogues (arXiv 2404.07616)."""

from __future__ import annotations

from pydantic import BaseModel, Field

from data_builders.llm_writer.asker import Asker, Checked, Row
from data_builders.llm_writer.checks import pair_problem, refusal, unsupported, words_of
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
        problem = pair_problem(turn.user, turn.assistant, facts) if number == 1 else _later_problem(turn, facts)
        if problem:
            return Checked([], [f"turn {number}: {problem}"])
    if first := _LEANS & set(words_of(turns[0].user)[:2]):
        return Checked([], [f"turn 1: the question opens with '{first.pop()}', and nothing stands before it"])
    if len({" ".join(words_of(turn.user)) for turn in turns}) < len(turns):
        return Checked([], ["the same question is asked twice"])
    if len({" ".join(words_of(turn.assistant)) for turn in turns}) < len(turns):
        return Checked([], ["the same answer is given twice"])
    if problem := unsupported(reply.evidence, facts):
        return Checked([], [problem])
    spoken = tuple(part for turn in turns for part in exchange(turn.user, turn.assistant))
    return Checked([Row(spoken, "1", "dialogue", meta={"evidence": reply.evidence})], [])


def _later_problem(turn: Exchange, facts: Facts) -> str:
    """A later question may be as short as "Why?"."""
    if not words_of(turn.user):
        return "the question is empty"
    return pair_problem(f"and further: {turn.user}", turn.assistant, facts) or refusal(turn.assistant)


async def _write(asker: Asker) -> list[Row]:
    return await asker.ask("dialogue", Dialogue, lambda reply: check(reply, asker.facts), count=EXCHANGES)


RECIPE = WritingRecipe(
    name="dialogue",
    about="one conversation of three questions (Audio Dialogues)",
    prompt="dialogue",
    ill_posed=needs_words,
    write=_write,
    likely_tokens=300,
)
