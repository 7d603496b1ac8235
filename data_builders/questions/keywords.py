"""Whether a word is said: of running speech whose words are known, with near misses from what others say."""

from __future__ import annotations

import random

from data_builders.questions.base import Context, Guard, IllPosed, Question, Subject
from data_builders.questions.speech import LONGEST_TRANSCRIPT_WORDS
from data_builders.sources.asterisk import normalised

SHORTEST_WORD_LETTERS = 4
"""Shorter ones are swallowed, or hidden in others."""
ALIKE_LETTERS = 4
"""Two words that begin with so many equal letters may be forms of one: neither is called absent where the other is."""


def keyword(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Whether a word is said. Half of the absent ones begin like a word that is."""
    clip = subject.clip
    if clip is None or clip.text is None or clip.language is None:
        return IllPosed("no transcript")
    spoken = normalised(clip.text).split()
    words = [word for word in sorted(set(spoken)) if len(word) >= SHORTEST_WORD_LETTERS and word.isalpha()]
    if not 3 <= len(spoken) <= LONGEST_TRANSCRIPT_WORDS or not words:
        return IllPosed("fewer than three words, too many, or none long enough")
    absent = [word for word in context.words(clip.language) if not any(_alike(word, said) for said in spoken)]
    if not absent:
        return IllPosed("no other words of this language are known")
    near = [word for word in absent if any(word[0] == said[0] for said in words)]
    said = rng.random() < 0.5
    word = rng.choice(words if said else near if near and rng.random() < 0.5 else absent)
    answer = "yes" if said else "no"
    guards = (
        Guard("keyword", answer, ("yes", "no")),
        Guard(f"keyword {clip.language} {word}", answer, ("yes", "no"), lead=2),
    )
    return Question("keyword", answer, "default", {"word": word}, ("yes", "no"), "yes_no", guards)


def _alike(word: str, said: str) -> bool:
    return word == said or word in said or said in word or word[:ALIKE_LETTERS] == said[:ALIKE_LETTERS]
