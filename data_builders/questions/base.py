"""What a question family gives: a question with its answer, or the reason why none can be asked of this clip."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

from data_builders.clips import Clip
from data_builders.scenes import Scene
from data_builders.sources.asterisk import normalised
from lalm.data.records import AnswerType

CANNOT_TELL = "I cannot tell from this clip."


@dataclass(frozen=True)
class Subject:
    """One stored clip and its ground truth: either a source clip (or a variant of one) or a composed scene."""

    id: str
    clip: Clip | None = None
    scene: Scene | None = None
    original: bool = True
    """False for a variant of another stored clip: it is asked less."""
    second: Subject | None = None
    """The other clip, of a question about two."""
    features: dict[str, float] = field(default_factory=dict)
    """What was measured of the file, of a sound or an instrument."""


@dataclass(frozen=True)
class Context:
    """What families need beyond one subject: the closed sets of labels, and the other languages' texts by prompt."""

    sound_labels: tuple[str, ...]
    instrument_labels: tuple[str, ...]
    scene_labels: tuple[str, ...]
    translations: dict[str, dict[str, str]] = field(default_factory=dict)
    """prompt key -> language -> text"""

    @cached_property
    def _words(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {}
        for texts in self.translations.values():
            for language, text in texts.items():
                found.setdefault(language, set()).update(normalised(text).split())
        return {language: tuple(sorted(filter(_whole_word, words))) for language, words in found.items()}

    def words(self, language: str) -> tuple[str, ...]:
        """The words of four letters or more that are said in a language, by name."""
        return self._words.get(language, ())


def _whole_word(word: str) -> bool:
    return len(word) >= 4 and word.isalpha()


class Guard(NamedTuple):
    """One thing that must not become guessable: the answers counted under `key` are kept level over `space`."""

    key: str
    answer: str
    space: tuple[str, ...]
    lead: int = 1
    """How far the commonest may run ahead of the rarest while few are counted."""


@dataclass(frozen=True)
class Question:
    """One question. `wording` names the list of wordings in the task's file; `slots` fill its braces."""

    task: str
    answer: str
    wording: str = "default"
    slots: dict[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] | None = None
    answer_type: AnswerType = "open"
    guards: tuple[Guard, ...] = ()
    """What balance.py keeps level; none where answers are free."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What a scorer must know besides, for the record's `meta`: the constraint on an answer."""
    earlier: tuple[Question, ...] = ()
    """The questions of the turns before this one, in a conversation of several."""


def name_guards(key: str, answer: str, wrong: Sequence[str], rng: random.Random) -> tuple[Guard, ...]:
    """Keeps each name as often right as its share of the options says, in questions with so many options.

    Of k options k - 1 are wrong: a wrong name counts for one of k - 1 answers, drawn, and all k are kept level.
    """
    space = right_and_wrong(len(wrong))
    places, key = space[1:], f"{key} {len(space)}"
    guards = [Guard(f"{key} {name}", rng.choice(places), space, 3) for name in wrong]
    return (Guard(f"{key} {answer}", "right", space, 3), *guards)


@cache
def right_and_wrong(num_wrong: int) -> tuple[str, ...]:
    """The places that a name can take among options of which so many are wrong."""
    return ("right", *(f"wrong {place}" for place in range(1, num_wrong + 1)))


@dataclass(frozen=True)
class IllPosed:
    """Why a family asks nothing of a subject."""

    reason: str


Family = Callable[[Subject, Context, random.Random], Question | IllPosed]


def with_article(label: str) -> str:
    """The label as a noun phrase: "a bell", "an organ", but "speech", "brass"."""
    if label in {"speech", "brass", "vinyl hiss", "robot noise"}:
        return label
    return f"{'an' if label[0] in 'aeiou' else 'a'} {label}"


def with_the(label: str) -> str:
    """The label as a known thing: "the bell"."""
    return f"the {label}"
