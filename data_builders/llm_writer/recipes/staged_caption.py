"""Captions in three stages, after AudioSetCaps (arXiv 2411.18953): a listener reports, a writer merges, a score
decides.

The only recipe for clips of which nothing is known; the listener may be a trained run of this project.
"""

from __future__ import annotations

from pydantic import BaseModel

from data_builders.llm_writer.asker import Asker, Checked, Rejected, Row
from data_builders.llm_writer.checks import pair_problem
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
        problem = pair_problem(question, answer, facts)
        if not problem and len(answer.split()) > MOST_WORDS:
            problem = f"it has {len(answer.split())} words; at most {MOST_WORDS} are wanted"
        if problem and name == "caption":
            return Checked([], [f"caption: {problem}"])
        if problem:
            reasons.append(f"{name}: {problem}")
        else:
            rows.append(Row(exchange(question, answer), name, "caption" if name == "caption" else "caption_qa"))
    return Checked(rows, reasons)


async def _write(asker: Asker) -> list[Row]:
    hear, similarity = asker.helpers.hear, asker.helpers.similarity
    assert hear is not None
    clip = asker.facts.audio[0]
    heard = [(question, await asker.call(hear, clip, question)) for question in HEARD_PROMPTS]
    best: tuple[float, list[Row]] | None = None
    rejected = None
    for attempt in range(2):
        slots = {"heard": heard, "rejected": rejected}
        rows = await asker.ask(
            "merge_caption", Merged, lambda reply: check(reply, asker.facts), attempt=attempt, **slots
        )
        if similarity is None:
            return [_with(row, heard, None) for row in rows]
        rejected = rows[0].turns[-1].content
        score = float(await asker.call(similarity, clip, rejected))
        if best is None or score > best[0]:
            best = (score, rows)
        if score >= LEAST_SIMILARITY:
            break
    assert best is not None
    if best[0] < LEAST_SIMILARITY:
        raise Rejected(f"the better of two captions fits the clip with {best[0]:.3f}; {LEAST_SIMILARITY} is wanted")
    return [_with(row, heard, best[0]) for row in best[1]]


def _with(row: Row, heard: list[tuple[str, str]], score: float | None) -> Row:
    meta = {"heard": [answer for _, answer in heard], "similarity": score if score is not None else "not measured"}
    return Row(row.turns, row.tail, row.task, meta=meta)


RECIPE = WritingRecipe(
    name="staged_caption",
    about="a caption and up to three questions from what a model hears (AudioSetCaps)",
    prompt="merge_caption",
    ill_posed=ill_posed,
    write=_write,
    needs=("hear",),
    likely_tokens=150,
)
