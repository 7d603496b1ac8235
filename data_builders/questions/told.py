"""Questions about what a corpus tells of a whole recording: captions, emotion, speaker, times of events, tempo, key."""

from __future__ import annotations

import random

from data_builders.questions.base import Context, Guard, IllPosed, Question, Subject, with_the
from data_builders.questions.scenes import same_to_an_ear
from data_builders.questions.speech import listed

EMOTIONS = ("angry", "disgusted", "fearful", "happy", "neutral", "sad")
"""Those that corpora share; finer ones (excited, frustrated) are asked with none of their kind among the options."""
KINDS_OF = {"excited": "happy", "frustrated": "angry", "surprised": "fearful", "calm": "neutral"}
NUM_OPTIONS = 4
CLEARLY_BEFORE_SECONDS = 0.5
TEMPO_RATIO = 1.25
SLOWEST_BPM, FASTEST_BPM = 40, 240
TONICS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
KEYS = tuple(f"{tonic} {mode}" for tonic in TONICS for mode in ("major", "minor"))
FLATS = {"Db": "C sharp", "D#": "E flat", "Eb": "E flat", "Gb": "F sharp", "F#": "F sharp", "C#": "C sharp",
         "G#": "A flat", "Ab": "A flat", "A#": "B flat", "Bb": "B flat"}  # fmt: skip


def caption(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """A caption of the corpus, one of several."""
    captions = _fact(subject, "captions")
    if not captions:
        return IllPosed("no caption")
    return Question("description", captions[0] if len(captions) == 1 else rng.choice(captions))


def told_question(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """A question of the corpus with its answer, as they stand."""
    exchanges = _fact(subject, "exchanges")
    if not exchanges:
        return IllPosed("no question is told")
    question, answer = exchanges[0] if len(exchanges) == 1 else rng.choice(exchanges)
    if answer.lower() in ("yes", "no"):
        guards = (Guard("told_question", answer.lower(), ("yes", "no"), lead=3),)
        return Question("told_question", answer.lower(), slots={"question": question}, choices=("yes", "no"),
                        answer_type="yes_no", guards=guards)  # fmt: skip
    return Question("told_question", answer, slots={"question": question})


def emotion(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """How a speaker sounds, from four options none of which is near the answer."""
    answer = _fact(subject, "emotion")
    if not answer:
        return IllPosed("no emotion is told")
    others = [name for name in EMOTIONS if name not in (answer, KINDS_OF.get(answer))]
    choices = [answer, *rng.sample(others, NUM_OPTIONS - 1)]
    rng.shuffle(choices)
    space = tuple(sorted({*EMOTIONS, answer}))
    return _choice("emotion", answer, choices, (Guard("emotion", answer, space, lead=4),))


def pair_speaker(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Whether two clips have the same speaker."""
    first = _fact(subject, "speaker")
    second = _fact(subject.second, "speaker") if subject.second else None
    if not first or not second:
        return IllPosed("no two speakers are told")
    answer = "yes" if first == second else "no"
    guards = (Guard("pair_speaker", answer, ("yes", "no"), lead=3),)
    return Question("pair_speaker", answer, choices=("yes", "no"), answer_type="yes_no", guards=guards)


def event_order(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Which of two sounds begins first; each occurs once, and they begin clearly apart."""
    events = _fact(subject, "told_events") or []
    names = [name for name, _, _ in events]
    once = [event for event in events if names.count(event[0]) == 1]
    pairs = [
        (one[0], other[0])
        for one in once
        for other in once
        if other[1] - one[1] >= CLEARLY_BEFORE_SECONDS and not same_to_an_ear(one[0], [other[0]])
    ]
    if not pairs:
        return IllPosed("no two events that occur once and begin apart")
    answer, later = pairs[0] if len(pairs) == 1 else rng.choice(pairs)
    choices = [answer, later]
    rng.shuffle(choices)
    place = "first" if choices[0] == answer else "second"
    guards = (Guard("event_order place", place, ("first", "second"), lead=2),)
    slots = {"first": with_the(choices[0]), "second": with_the(choices[1])}
    return Question("event_order", answer, slots=slots, choices=tuple(choices), answer_type="choice", guards=guards)


def tempo_bpm(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Beats a minute, from four options that differ by a quarter or more and are no doubles of one another."""
    told = _fact(subject, "tempo_bpm")
    if not told or not SLOWEST_BPM <= told <= FASTEST_BPM or not subject.original:
        return IllPosed("no tempo is told")
    answer, options = round(told), [round(told)]
    tries = [answer * TEMPO_RATIO**step for step in (-2, -1, 1, 2)]
    place = rng.randrange(2)
    options += [round(tempo) for tempo in (tries[:3] if place else tries[1:])]
    rng.shuffle(options)
    return _choice("tempo_bpm", str(answer), [str(tempo) for tempo in options], ())


def musical_key(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The key, from four; its relative and parallel keys and those a fifth away are not among the others."""
    clip = subject.clip
    answer = key_named(clip.facts.get("key")) if clip is not None and clip.kind != "speech" else None
    if answer is None or not subject.original:
        return IllPosed("no key is told")
    place = KEYS.index(answer)
    tonic, mode = divmod(place, 2)
    near = {(tonic + step) % len(TONICS) for step in (0, 5, 7, 9 if mode == 0 else 3)}
    others = [name for number, name in enumerate(KEYS) if number // 2 not in near]
    choices = [answer, *rng.sample(others, NUM_OPTIONS - 1)]
    rng.shuffle(choices)
    return _choice("musical_key", answer, choices, ())


def key_named(text: str | None) -> str | None:
    """A key as the options have it, from "A minor", "Am", "Bb major", "f# min"; None where it is none."""
    words = (text or "").replace("-", " ").split()
    if not words:
        return None
    name = words[0][:1].upper() + words[0][1:]
    minor = (len(words) > 1 and words[-1].lower().startswith("min")) or (len(words) == 1 and name.endswith("m"))
    name = name.removesuffix("m") if len(words) == 1 else name
    if len(words) == 3:
        name += {"sharp": "#", "flat": "b"}.get(words[1].lower(), "?")
    key = f"{FLATS.get(name, name)} {'minor' if minor else 'major'}"
    return key if key in KEYS else None


def _choice(task: str, answer: str, choices: list[str], guards: tuple[Guard, ...]) -> Question:
    return Question(task, answer, slots={"choices": listed(choices)}, choices=tuple(choices), answer_type="choice",
                    guards=guards)  # fmt: skip


def _fact(subject: Subject, name: str):
    return subject.clip.facts.get(name) if subject.clip is not None and subject.scene is None else None
