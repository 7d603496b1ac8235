"""One open question about one sound at a time, for models that are too small for the other recipes.

A model of 135 million parameters does not keep to several instructions at once: asked for four pairs with evidence it
copies the form, or goes round in circles. Here it is shown three examples, asked for one pair from one angle, and held
by the schema to the clip's own sounds and to a question that is open. It is still wrong more often than right, so each
row has several candidates, and the first that passes the checks is taken. They are those of the other recipes, and
more: no row for an answer that copies an example, goes round in circles, or has the sounds in another order.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import BaseModel

from data_builders.clips import seeded
from data_builders.llm_writer.asker import Asker, Checked, Rejected, Row
from data_builders.llm_writer.checks import Reason, exchange_problem, unsupported, words_of
from data_builders.llm_writer.facts import Facts
from data_builders.llm_writer.order import order_problem
from data_builders.llm_writer.recipes.base import WritingRecipe, exchange
from data_builders.prompts import load_prompt

PAIRS = 1
CANDIDATES = 8
"""Replies asked for one row, at most."""
ANGLES = {
    "place": "Where (could|might|may)",
    "cause": "Why (could|might|would)",
    "next": "What (could|might|may)",
    "feeling": "How (could|might|would)",
    "who": "Who (could|might|may)",
    "action": "What (could|might|should)",
}
"""By the angle, how a question begins."""
OPENS = {"where", "why", "what", "how", "who"}
MOST_CHARACTERS = 120
"""Of a question or an answer. The schema allows more, so that a text which it cuts off is seen to be too long."""
COPIED_WORDS = 5
LEAST_DISTINCT = 0.7
_UNCOUNTED = {"applause", "brass", "laughter", "music", "rain", "speech", "thunder", "water", "wind"}
_ITSELF = {"i", "me", "my", "we", "you", "your"}


class OneQuestion(BaseModel):
    """`about` is one of the sounds named in the prompt."""

    about: str
    question: str
    answer: str


def sounds_of(facts: Facts) -> list[str]:
    """The names of what is heard: timed events in their order, or else labels in that of the facts."""
    timed = [event.label for event in facts.timed_events()]
    return timed or [*(event.label for event in facts.events), *facts.tags, *facts.instruments]


def ill_posed(facts: Facts) -> str:
    """At least one sound with a name."""
    return "" if sounds_of(facts) else "no sound of the clip has a name"


def check(reply: OneQuestion, facts: Facts, prompt: str) -> Checked:
    """The row, or why there is none. `prompt` is what the writer was shown."""
    # Of the known questions, some name sounds that are absent: what is said here must rest on the rest.
    certain = facts.model_copy(update={"questions": ()})
    problem = (
        exchange_problem(reply.question, reply.answer, certain)
        or unsupported([reply.about], certain)
        or _form_problem(reply)
        or _copied(reply.answer, prompt)
        or order_problem(f"{reply.question} {reply.answer}", facts.timed_events())
    )
    if problem:
        return Checked([], [problem])
    events = [event.model_dump() for event in facts.timed_events()]
    meta = {"evidence": [reply.about]} | ({"events": events} if events else {})
    return Checked([Row(exchange(reply.question, reply.answer), "1", "open_aqa", meta=meta)])


def _form_problem(reply: OneQuestion) -> Reason | None:
    asked, answered = words_of(reply.question), words_of(reply.answer)
    if asked[0] not in OPENS or not reply.question.strip().endswith("?"):
        return Reason("the question is not an open one", reply.question)
    if not set(words_of(reply.about)) & set(asked):
        return Reason("the question does not speak of its sound", f"{reply.about}: {reply.question}")
    if max(len(reply.question), len(reply.answer)) > MOST_CHARACTERS:
        return Reason("the question or the answer is too long", reply.answer)
    if _ITSELF & set(answered):
        return Reason("the answer speaks of itself or to the reader", reply.answer)
    for text in (asked, answered):
        # "loud and loud"
        twice = any(one == other for one, other in zip(text, text[2:], strict=False))
        if len(set(text)) < LEAST_DISTINCT * len(text) or twice:
            return Reason("goes round in circles", " ".join(text))
    return None


def _copied(answer: str, prompt: str) -> Reason | None:
    words, shown = words_of(answer), f" {' '.join(words_of(prompt))} "
    for start in range(len(words) - COPIED_WORDS + 1):
        run = " ".join(words[start : start + COPIED_WORDS])
        if f" {run} " in shown:
            return Reason("the answer copies an example", run)
    return None


def _said(labels: list[str], in_order: bool) -> str:
    named = [
        label if label.split()[-1] in _UNCOUNTED else f"{'an' if label[0].lower() in 'aeiou' else 'a'} {label}"
        for label in labels
    ]
    return (", then " if in_order else ", ").join(named)


async def _write(asker: Asker) -> list[Row]:
    facts = asker.facts
    sounds = sounds_of(facts)
    said = _said(sounds, bool(facts.timed_events()))
    angles = seeded(asker.seed, "one_sound", facts.id).sample(sorted(ANGLES), len(ANGLES))
    rows: list[Row] = []
    for candidate in range(CANDIDATES * (asker.pairs or PAIRS)):
        angle = angles[candidate % len(angles)]
        prompt = load_prompt("one_sound").messages(facts=facts, angle=angle, sounds=said)[1][1]
        narrowed: dict[str, dict[str, Any]] = {
            "about": {"enum": sorted(set(sounds))},
            "question": {"pattern": rf"^{ANGLES[angle]} [A-Za-z0-9 ,'-]{{10,{MOST_CHARACTERS}}}\?$"},
            "answer": {"pattern": rf"^[A-Z][A-Za-z0-9 ,'-]{{10,{MOST_CHARACTERS + 20}}}\.$"},
        }
        try:
            written = await asker.ask(
                "one_sound",
                OneQuestion,
                partial(check, facts=facts, prompt=prompt),
                attempt=candidate,
                narrowed=narrowed,
                again=False,
                angle=angle,
                sounds=said,
            )
        except Rejected as rejected:
            asker.reasons += (reason.at(f"candidate {candidate + 1}") for reason in rejected.reasons)
            continue
        same = {tuple(words_of(row.turns[0].content)) for row in rows}
        if tuple(words_of(written[0].turns[0].content)) in same:
            asker.reasons.append(Reason("a question is asked twice", place=f"candidate {candidate + 1}"))
            continue
        rows.append(Row(written[0].turns, str(len(rows) + 1), written[0].task, meta=written[0].meta | {"angle": angle}))
        if len(rows) == (asker.pairs or PAIRS):
            break
    if not rows:
        raise Rejected(*asker.reasons)
    return rows


RECIPE = WritingRecipe(
    name="one_sound",
    about="one open question about one sound, several candidates each, for small models",
    prompt="one_sound",
    ill_posed=ill_posed,
    write=_write,
    likely_tokens=60,
)
