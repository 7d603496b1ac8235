"""What a text says about which sound comes first, against when the sounds begin. By rule, in English."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations

from data_builders.llm_writer.checks import Reason, words_of
from data_builders.llm_writer.facts import TimedEvent

FIRST = r"(?:before|and then|then|is followed by|followed by|leads to|until)"
SECOND = r"(?:after|follows|following)"
BETWEEN = r"(?: \w+){0,3}? "


def order_problem(text: str, events: Sequence[TimedEvent]) -> Reason | None:
    """A claim such as "the bell after the dog" that no two occurrences bear out.

    Only claims with both names within a few words of the connective are read, so an order said otherwise goes unseen.
    """
    plain = " ".join(words_of(text))
    onsets: dict[str, list[float]] = {}
    for event in events:
        onsets.setdefault(" ".join(words_of(event.label)), []).append(event.onset or 0.0)
    for one, other in permutations(sorted(onsets), 2):
        for connective, earlier, later in ((FIRST, one, other), (SECOND, other, one)):
            claim = re.search(rf"\b{one}s?{BETWEEN}{connective}{BETWEEN}{other}s?\b", plain)
            if claim and min(onsets[earlier]) >= max(onsets[later]):
                return Reason("has the sounds in another order", claim.group(0))
    return None
