"""What a written question or answer must not do, each check giving the reason in words, or an empty text.

The reasons go back to the writer in the second ask, and into the sidecar of rejects after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from data_builders.llm_writer.facts import Facts

_LEAKS = re.compile(
    r"\b(meta-?data|captions?\b|the (?:given |provided )?(?:notes|labels|tags|annotations?|description|text)\b"
    r"|as an ai\b|language model|based on the (?:information|details)|\[(?:question|answer|inst)\b|ground truth)",
    re.IGNORECASE,
)
_REFUSALS = re.compile(
    r"^\W*(?:i(?:'m| am) (?:sorry|unable|not able)|sorry|unfortunately|i can(?:no|')t|it is (?:not possible|impossible)"
    r"|(?:the )?(?:audio|recording|clip) (?:was|is) not (?:provided|available)|there is (?:not enough|insufficient))",
    re.IGNORECASE,
)
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(?:-\s*)?(?:s|sec|seconds?)\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")


def leak(text: str) -> str:
    """Words that betray what the writer was shown, which no listener could know of."""
    found = _LEAKS.search(text)
    return f"it mentions '{found.group(0)}', which a listener does not have" if found else ""


def refusal(answer: str) -> str:
    """An answer that opens by declining to give one."""
    found = _REFUSALS.search(answer)
    return f"the answer opens with '{found.group(0).strip()}'" if found else ""


def beyond_the_end(text: str, facts: Facts) -> str:
    """A number of seconds that the clip does not have."""
    if facts.seconds is None:
        return ""
    late = next((value for value in map(float, _SECONDS.findall(text)) if value > facts.seconds + 0.5), None)
    return "" if late is None else f"it speaks of {late:g} seconds in a clip of {facts.seconds:g}"


def unsupported(evidence: Iterable[str], facts: Facts) -> str:
    """Evidence that is not in the facts. It counts as there when its words stand in one fact, in order."""
    pieces = [words_of(piece) for piece in evidence]
    pieces = [piece for piece in pieces if piece]
    if not pieces:
        return "it names no evidence"
    known = [f" {' '.join(words_of(text))} " for text in [*facts.words(), *_event_lines(facts)]]
    for piece in pieces:
        if not any(f" {' '.join(piece)} " in text for text in known):
            return f"its evidence '{' '.join(piece)}' is not known of the clip"
    return ""


def pair_problem(question: str, answer: str, facts: Facts) -> str:
    """The first thing wrong with a question and its answer, the evidence aside."""
    if len(words_of(question)) < 3:
        return f"the question '{question.strip()}' is too short"
    if not words_of(answer):
        return "the answer is empty"
    if words_of(question) == words_of(answer):
        return "the answer repeats the question"
    for text in (question, answer):
        if problem := leak(text) or beyond_the_end(text, facts):
            return problem
    return refusal(answer)


def words_of(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.casefold())


def _event_lines(facts: Facts) -> list[str]:
    """Events and single facts as the prompt shows them, which is what a model copies when it copies a whole line."""
    lines = []
    for event in facts.events:
        times = "" if event.onset is None else f", from {event.onset:.1f} s"
        times += "" if event.onset is None or event.offset is None else f" to {event.offset:.1f} s"
        lines.append(f"event: {event.label}{times}")
    lines.append(f"sounds: {', '.join(facts.tags)}")
    lines.append(f"instruments: {', '.join(facts.instruments)}")
    named = [("words spoken", facts.transcript), ("language spoken", facts.language), ("speaker", facts.speaker)]
    named += [("emotion of the voice", facts.emotion), *(("description", caption) for caption in facts.captions)]
    return lines + [f"{name}: {text}" for name, text in named if text]
