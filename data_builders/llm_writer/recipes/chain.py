"""Chains of thought with a checked end: the writer never sees the known answer, and a chain that misses it is dropped.

The question is known of the clip (with options, yes or no, a number), or else follows from its timed events.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from data_builders.clips import seeded
from data_builders.llm_writer.asker import Asker, Checked, Row
from data_builders.llm_writer.checks import Reason, said_problem, unsupported, words_of
from data_builders.llm_writer.facts import Facts, KnownQuestion
from data_builders.llm_writer.recipes.base import WritingRecipe, exchange

_ARTICLES = {"a", "an", "the"}


class Step(BaseModel):
    thought: str
    evidence: str


class Chain(BaseModel):
    steps: list[Step] = Field(min_length=2, max_length=8)
    final: str


def known_question(facts: Facts, seed: int) -> KnownQuestion | None:
    """The question to think about, drawn by seed among those with a closed answer."""
    closed = [q for q in facts.questions if q.choices or q.answer_type in ("choice", "yes_no", "number")]
    closed = closed or _of_events(facts)
    return seeded(seed, "chain", facts.id).choice(closed) if closed else None


def _of_events(facts: Facts) -> list[KnownQuestion]:
    events = facts.timed_events()
    labels = [event.label for event in events]
    if len(set(labels)) < 2 or len({event.onset for event in events}) < len(events):
        return []
    choices = tuple(sorted(set(labels)))
    ends = [("Which sound comes first?", labels[0]), ("Which sound comes last?", labels[-1])]
    count = KnownQuestion(question="How many sounds are heard?", answer=str(len(labels)), answer_type="number")
    asked = [KnownQuestion(question=q, answer=a, choices=choices, answer_type="choice") for q, a in ends]
    return [*asked, count]


def ill_posed(facts: Facts) -> str:
    """A closed question, and facts to think with."""
    if not facts.lines(questions=False):
        return "nothing is known of the clip to think with"
    return "" if known_question(facts, 0) else "no question with a closed answer is known or follows from timed events"


def check(reply: Chain, question: KnownQuestion, facts: Facts) -> Checked:
    """Every step rests on the facts and the end is the known answer."""
    for number, step in enumerate(reply.steps, start=1):
        problem = said_problem(question.question, step.thought, facts) or unsupported(
            [step.evidence], facts, questions=False
        )
        if not words_of(step.thought):
            problem = Reason("a step is empty")
        if problem:
            return Checked([], [problem.at(f"step {number}")])
    if _bare(reply.final) != _bare(question.answer):
        # The reason goes back to the writer, so it must not hold the answer.
        return Checked([], [Reason("the final answer is not what the facts decide; think again", reply.final.strip())])
    thoughts = "\n".join(step.thought.strip() for step in reply.steps)
    asked = question.question
    if question.choices:
        asked += f"\nOptions: {', '.join(question.choices)}."
    asked += "\nThink step by step, then give the answer in a last line."
    row = Row(
        exchange(asked, f"{thoughts}\nSo the answer is: {question.answer}"),
        "1",
        "chain_of_thought",
        meta={"final": question.answer, "options": list(question.choices or ()), "steps": len(reply.steps)},
    )
    return Checked([row])


def _bare(text: str) -> list[str]:
    return [word for word in words_of(text) if word not in _ARTICLES]


async def _write(asker: Asker) -> list[Row]:
    question = known_question(asker.facts, asker.seed)
    assert question is not None
    return await asker.ask(
        "chain",
        Chain,
        lambda reply: check(reply, question, asker.facts),
        question=question.question,
        choices=question.choices,
        hides_answers=True,
    )


RECIPE = WritingRecipe(
    name="chain",
    about="one chain of thought whose final answer is checked",
    prompt="chain",
    ill_posed=ill_posed,
    write=_write,
    likely_tokens=250,
)
