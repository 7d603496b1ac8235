"""Captions in three stages, after AudioSetCaps (arXiv 2411.18953): a listener reports, a writer merges, a score
decides.

The only recipe for clips of which nothing is known; the listener may be a trained run of this project.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from data_builders.llm_writer.asker import Asker, Checked, Rejected, Row
from data_builders.llm_writer.checks import Reason, exchange_problem
from data_builders.llm_writer.facts import Facts
from data_builders.llm_writer.recipes.base import WritingRecipe, exchange

HEARD_PROMPTS = (
    "Which sounds are heard?",
    "Is there a voice, and if so, what is it like?",
    "Is there music, and if so, which instruments and which style?",
)
ASKED = {
    "caption": "Describe this recording in one sentence.",
    "sounds": "Which sounds are heard?",
    "voices": "What are the voices like?",
    "music": "What is the music like?",
}
LEAST_SIMILARITY = 0.25
"""A caption below it is written once more. It suits CLAP's cosine; a corpus of its own wants its own."""
MOST_WORDS = 60


class Merged(BaseModel):
    caption: str
    sounds: str | None = None
    voices: str | None = None
    music: str | None = None


def ill_posed(facts: Facts) -> str:
    """One clip a caption."""
    return "" if len(facts.audio) == 1 else f"it takes one clip, there are {len(facts.audio)}"


def check(reply: Merged, facts: Facts) -> Checked:
    """The caption decides: without it there is no row."""
    rows, reasons = [], []
    for name, question in ASKED.items():
        answer = getattr(reply, name)
        if answer is None:
            continue
        problem = exchange_problem(question, answer, facts)
        if problem is None and len(answer.split()) > MOST_WORDS:
            problem = Reason("the answer is too long", f"{len(answer.split())} words; at most {MOST_WORDS}")
        if problem and name == "caption":
            return Checked([], [problem.at(name)])
        if problem:
            reasons.append(problem.at(name))
        else:
            rows.append(Row(exchange(question, answer), name, "caption" if name == "caption" else "caption_qa"))
    return Checked(rows, reasons)


async def _write(asker: Asker) -> list[Row]:
    hear, similarity = asker.helpers.hear, asker.helpers.similarity
    assert hear is not None
    clip = asker.facts.audio[0]
    heard = [(question, await asker.call(hear, clip, question)) for question in HEARD_PROMPTS]
    known = asker.facts.model_copy(update={"captions": (*asker.facts.captions, *(reply for _, reply in heard))})
    best: tuple[float, list[Row]] = (-math.inf, [])
    caption = None
    for attempt in range(2):
        slots: dict[str, Any] = {"heard": heard, "rejected": caption}
        rows = await asker.ask("merge_caption", Merged, lambda reply: check(reply, known), attempt=attempt, **slots)
        if similarity is None:
            return [_with(row, known, "not measured") for row in rows]
        caption = rows[0].turns[-1].content
        score = float(await asker.call(similarity, clip, caption))
        best = max(best, (score, rows), key=lambda scored: scored[0])
        if score >= LEAST_SIMILARITY:
            break
    score, rows = best
    if score < LEAST_SIMILARITY:
        detail = f"{score:.3f}; {LEAST_SIMILARITY} is wanted"
        raise Rejected(Reason("no caption fits the sound of the clip", detail))
    return [_with(row, known, score) for row in rows]


def _with(row: Row, known: Facts, score: float | str) -> Row:
    """The row with what it rests on: the listener's reports count as known of the clip."""
    return replace(row, meta={**known.known(), "similarity": score})


RECIPE = WritingRecipe(
    name="staged_caption",
    about="a caption and up to three questions from what a model hears (AudioSetCaps)",
    prompt="merge_caption",
    ill_posed=ill_posed,
    write=_write,
    needs=("hear",),
    likely_tokens=150,
)
