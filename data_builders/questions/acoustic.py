"""Acoustic features of one sound, as LTU asks for them: how bright, how high, how long; measured of the file itself.

Source: LTU's acoustic-feature questions (arXiv 2305.10790), there written from class labels; here from measurements,
with a band between two words in which none is used.
"""

from __future__ import annotations

import random

from data_builders.questions.base import Context, Guard, IllPosed, Question, Subject
from data_builders.questions.speech import listed

FEATURES = {
    # measure: (low word, at most, high word, at least)
    "brightness_hz": ("dark", 700.0, "bright", 2000.0),
    "pitch": ("low-pitched", 52.0, "high-pitched", 74.0),
    "sounding_seconds": ("short", 0.6, "long", 1.6),
}
"""Spectral centroid (of the packaged recordings: kick drum 290, organ 630, flute 920, cymbal 2,320 Hz); mean key of the
notes (60 is middle C); seconds above a tenth of the peak."""
BRIGHTER_RATIO = 1.6
FIRST_SECOND = ("the first", "the second")


def acoustic_feature(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Which of two opposite words fits a sound."""
    told = described(subject)
    if not told:
        return IllPosed("no feature is clearly one or the other")
    name, answer = rng.choice(sorted(told.items()))
    choices = tuple(rng.sample((FEATURES[name][0], FEATURES[name][2]), 2))
    guards = (
        Guard(f"acoustic_feature {name}", answer, choices),
        Guard(f"acoustic_feature {name} {subject.clip.label if subject.clip else ''}", answer, choices, lead=3),
    )
    slots = {"choices": listed(choices)}
    meta = {"feature": name, "measured": measures(subject)[name]}
    return Question("acoustic_feature", answer, "default", slots, choices, "choice", guards, meta=meta)


def acoustic_features(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """A sentence with every word that clearly fits, of a sound with at least two."""
    told = [told for name, told in described(subject).items()]
    if len(told) < 2:
        return IllPosed("fewer than two features are clear")
    answer = f"The sound is {', '.join(told[:-1])} and {told[-1]}."
    return Question("acoustic_features", answer, meta={"measured": measures(subject)})


def pair_brighter(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Which of two sounds is brighter, by a clear margin."""
    first = measures(subject).get("brightness_hz")
    second = measures(subject.second).get("brightness_hz") if subject.second else None
    if not first or not second:
        return IllPosed("no two sounds that were measured")
    if max(first, second) < BRIGHTER_RATIO * min(first, second):
        return IllPosed("no clear margin to call one brighter")
    answer = FIRST_SECOND[first < second]
    guards = (Guard("pair_brighter", answer, FIRST_SECOND),)
    return Question("pair_brighter", answer, choices=FIRST_SECOND, answer_type="choice", guards=guards)


def measures(subject: Subject) -> dict[str, float]:
    """What is known by number of one sound or instrument; nothing of speech and scenes."""
    clip = subject.clip
    if clip is None or clip.kind == "speech":
        return {}
    found = dict(subject.features)
    notes = clip.facts.get("notes")
    if notes and subject.original:
        found["pitch"] = round(sum(notes) / len(notes), 1)
    return found


def described(subject: Subject) -> dict[str, str]:
    """Measure -> the word that clearly fits."""
    found = {}
    for name, value in measures(subject).items():
        low_word, at_most, high_word, at_least = FEATURES[name]
        if value <= at_most or value >= at_least:
            found[name] = low_word if value <= at_most else high_word
    return found
