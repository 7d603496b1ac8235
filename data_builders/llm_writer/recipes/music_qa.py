"""Nine questions on a piece of music, four of them fixed, after MusicQA (MusiLingo, arXiv 2309.08730)."""

from __future__ import annotations

from pydantic import BaseModel

from data_builders.llm_writer.asker import Asker, Checked, Row
from data_builders.llm_writer.checks import Reason, exchange_problem
from data_builders.llm_writer.facts import Facts
from data_builders.llm_writer.recipes.base import Pair, WritingRecipe, checked_pairs, exchange

FIXED = (
    "How would you describe this piece to somebody who has not heard it?",
    "Which instruments or voices can be heard?",
    "What mood does the music convey?",
    "How fast is the music, and how does its rhythm feel?",
)
FREE = 5


class NineAnswers(BaseModel):
    fixed: list[str | None]
    free: list[Pair]


def ill_posed(facts: Facts) -> str:
    """Music is known by instruments, attributes, or captions and tags."""
    known = facts.instruments or facts.attributes or facts.captions or facts.tags
    return "" if known else "neither instruments, attributes, tags nor captions are known"


def check(reply: NineAnswers, facts: Facts) -> Checked:
    """An answer of null is left out with that reason. Fixed answers too many or too few have lost their order."""
    if len(reply.fixed) != len(FIXED):
        return Checked([], [Reason("the fixed questions have another number of answers", str(len(reply.fixed)))])
    rows, reasons = [], []
    for number, (question, answer) in enumerate(zip(FIXED, reply.fixed, strict=True), start=1):
        problem = exchange_problem(question, answer, facts) if answer else Reason("its answer is not known")
        if problem or not answer:
            reasons.append((problem or Reason("the answer is empty")).at(f"fixed question {number}"))
        else:
            rows.append(Row(exchange(question, answer), f"fixed{number}", "music_qa"))
    free = checked_pairs(reply.free, facts, "music_qa", FREE)
    return Checked(rows + free.rows, reasons + free.reasons)


async def _write(asker: Asker) -> list[Row]:
    return await asker.ask("music_qa", NineAnswers, lambda reply: check(reply, asker.facts), fixed=FIXED, count=FREE)


RECIPE = WritingRecipe(
    name="music_qa",
    about="nine questions on a piece of music (MusicQA)",
    prompt="music_qa",
    ill_posed=ill_posed,
    write=_write,
    likely_tokens=600,
)
