"""Questions about rendered notes, whose score is known: how many, which way, how far apart, which one, how fast.

A variant that was played faster or slower has another pitch and tempo: those are asked of the original alone. What a
ratio or an order decides stays true.
"""

from __future__ import annotations

import random
from itertools import pairwise

from data_builders.questions.base import Context, Guard, IllPosed, Question, Subject
from data_builders.questions.speech import listed

NUMBERS = ("one", "two", "three", "four", "five")
PITCH_CLASSES = ("C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B")
INTERVALS = (
    "unison",
    "minor second",
    "major second",
    "minor third",
    "major third",
    "perfect fourth",
    "tritone",
    "perfect fifth",
    "minor sixth",
    "major sixth",
    "minor seventh",
    "major seventh",
    "octave",
)
DIRECTIONS = ("upwards", "downwards", "both ways")
TEMPOS = ("two", "three", "four")
"""Notes a second."""
TEMPO_SLACK = 0.25
CHORDS = {"major": (0, 4, 7), "minor": (0, 3, 7), "diminished": (0, 3, 6), "dominant seventh": (0, 4, 7, 10)}
"""Half tones above the root."""
NUM_OPTIONS = 4


def note_count(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """How many notes are played one after another."""
    notes = _notes(subject)
    if notes is None:
        return IllPosed("no score is known")
    if not 1 <= len(notes) <= len(NUMBERS):
        return IllPosed("too many notes to count")
    answer = NUMBERS[len(notes) - 1]
    guards = (Guard("note_count", answer, NUMBERS),)
    return Question("note_count", answer, choices=NUMBERS, answer_type="number", guards=guards)


def melody_direction(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Whether the notes go up, down, or both ways."""
    notes = _notes(subject)
    if notes is None:
        return IllPosed("no score is known")
    steps = [later - earlier for earlier, later in pairwise(notes)]
    if not steps or 0 in steps:
        return IllPosed("one note, or a note that is played twice in a row")
    answer = DIRECTIONS[0 if min(steps) > 0 else 1 if max(steps) < 0 else 2]
    guards = (Guard("melody_direction", answer, DIRECTIONS),)
    choices = tuple(rng.sample(DIRECTIONS, len(DIRECTIONS)))
    return Question("melody_direction", answer, "default", {"choices": listed(choices)}, choices, "choice", guards)


def interval(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The interval between the two notes of a clip, from four neighbouring ones."""
    notes = _notes(subject)
    if notes is None:
        return IllPosed("no score is known")
    if len(notes) != 2 or abs(notes[0] - notes[1]) >= len(INTERVALS):
        return IllPosed("not two notes within an octave")
    size = abs(notes[0] - notes[1])
    # The window lies anywhere around the answer, so that its place in the window tells nothing.
    start = min(max(0, size - rng.randrange(NUM_OPTIONS)), len(INTERVALS) - NUM_OPTIONS)
    window = INTERVALS[start : start + NUM_OPTIONS]
    choices = tuple(rng.sample(window, NUM_OPTIONS))
    guards = (Guard(f"interval {start}", INTERVALS[size], window, lead=2),)
    return Question("interval", INTERVALS[size], "default", {"choices": listed(choices)}, choices, "choice", guards)


def pitch(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The name of the only note, without its octave."""
    notes = _notes(subject)
    if notes is None:
        return IllPosed("no score is known")
    if len(notes) != 1 or not subject.original:
        return IllPosed("not one note at the pitch it was written at")
    answer = PITCH_CLASSES[notes[0] % 12]
    guards = (Guard("pitch", answer, PITCH_CLASSES, lead=2),)
    return Question("pitch", answer, choices=PITCH_CLASSES, answer_type="choice", guards=guards)


def tempo(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """About how many notes a second are played, where it lies near a whole number."""
    notes = _notes(subject)
    beat = subject.clip.facts.get("beat_seconds") if subject.clip else None
    if notes is None or not beat:
        return IllPosed("no score is known")
    if len(notes) < 3 or not subject.original:
        return IllPosed("fewer than three notes at the speed they were written at")
    number = round(1 / beat)
    if not 2 <= number <= 4 or abs(1 / beat - number) > TEMPO_SLACK:
        return IllPosed("not near a whole number of notes a second")
    guards = (Guard("tempo", TEMPOS[number - 2], TEMPOS),)
    return Question("tempo", TEMPOS[number - 2], choices=TEMPOS, answer_type="number", guards=guards)


def chord(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Which kind of chord a single one is."""
    clip = subject.clip
    kind = clip.facts.get("chord") if clip is not None else None
    if kind not in CHORDS:
        return IllPosed("no single chord is known")
    choices = tuple(rng.sample(tuple(CHORDS), len(CHORDS)))
    guards = (Guard("chord", kind, tuple(CHORDS)),)
    return Question("chord", kind, "default", {"choices": listed(choices)}, choices, "choice", guards)


def _notes(subject: Subject) -> list[int] | None:
    clip = subject.clip
    return clip.facts.get("notes") if clip is not None and clip.kind == "instrument" else None
