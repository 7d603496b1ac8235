"""Instructions said aloud, after SpeechInstruct (SpeechGPT, arXiv 2305.11000): the clip, then a voice that asks.

A row hears two audio files and reads nothing but their places; the words are kept in `meta`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from data_builders.llm_writer.asker import Asker, Checked, Row
from data_builders.llm_writer.checks import Reason
from data_builders.llm_writer.facts import Facts
from data_builders.llm_writer.recipes.base import Pairs, WritingRecipe, checked_pairs, exchange, needs_words
from lalm.data.records import AUDIO_PLACEHOLDER

PAIRS = 2
MOST_WORDS = 30
_UNSPEAKABLE = re.compile(r"[\d/*_#<>|\[\]{}]")


def check(reply: Pairs, facts: Facts, most: int = PAIRS) -> Checked:
    """What is said must be short and free of signs that a voice would spell out."""
    checked = checked_pairs(reply.pairs, facts, "spoken_instruction", most)
    rows, reasons = [], list(checked.reasons)
    for row in checked.rows:
        said = row.turns[0].content
        sign = _UNSPEAKABLE.search(said)
        if sign:
            reasons.append(Reason("the question cannot be said aloud", sign.group(0), f"pair {row.tail}"))
        elif len(said.split()) > MOST_WORDS:
            detail = f"{len(said.split())} words; at most {MOST_WORDS}"
            reasons.append(Reason("the question is too long to say", detail, f"pair {row.tail}"))
        else:
            rows.append(row)
    return Checked(rows, reasons)


async def _write(asker: Asker) -> list[Row]:
    most = asker.pairs or PAIRS
    rows = await asker.ask("spoken", Pairs, lambda reply: check(reply, asker.facts, most), most=most, count=most)
    places = "\n".join([AUDIO_PLACEHOLDER] * (len(asker.facts.audio) + 1))
    spoken = []
    for row in rows:
        said, answer = row.turns[0].content, row.turns[1].content
        extra = (await asker.speak(said),)
        turns = exchange(places, answer)
        spoken.append(replace(row, turns=turns, extra_audio=extra, meta={**row.meta, "said": said}))
    return spoken


RECIPE = WritingRecipe(
    name="spoken",
    about="two spoken instructions about a clip (SpeechInstruct)",
    prompt="spoken",
    ill_posed=needs_words,
    write=_write,
    needs=("speak",),
    likely_tokens=200,
)
