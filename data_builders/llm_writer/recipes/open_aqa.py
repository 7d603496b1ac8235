"""Open-ended questions on anything that is known, after LTU's open-ended AQA (arXiv 2305.10790)."""

from __future__ import annotations

from data_builders.llm_writer.asker import Asker, Checked, Row
from data_builders.llm_writer.recipes.base import Pairs, WritingRecipe, checked_pairs, needs_words

PAIRS = 4


async def _write(asker: Asker) -> list[Row]:
    most = asker.pairs or PAIRS

    def check(reply: Pairs) -> Checked:
        return checked_pairs(reply.pairs, asker.facts, "open_aqa", most)

    return await asker.ask("open_aqa", Pairs, check, most=most, count=most)


RECIPE = WritingRecipe(
    name="open_aqa",
    about="four open-ended questions a clip (LTU)",
    prompt="open_aqa",
    ill_posed=needs_words,
    write=_write,
    likely_tokens=400,
)
