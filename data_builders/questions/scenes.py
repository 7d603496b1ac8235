"""Questions about composed scenes, computed from their events: what, whether, in which order, how many, longer, louder.

A reference event must be the only one of its label; two lengths or levels must differ by a margin before one is called
longer or louder. What does not hold is ill-posed and not asked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from data_builders.questions.base import Context, Guard, IllPosed, Question, Subject, with_article, with_the
from data_builders.questions.speech import listed

LONGER_RATIO, LONGER_SECONDS = 1.5, 0.35
LOUDER_DB, LOUDER_PEAK_DB = 6.0, 3.0
"""By RMS, and the peaks must agree: a bell that rings out has a low RMS and is not quiet."""
NUMBERS = ("one", "two", "three", "four")
NEAR = {
    # an absent event that sounds like one that is there is the harder question
    "kick drum": ("tom drum", "snare drum", "tabla"),
    "snare drum": ("kick drum", "cymbal", "finger snap"),
    "cymbal": ("snare drum", "bell"),
    "tom drum": ("kick drum", "tabla"),
    "tabla": ("tom drum", "kick drum"),
    "drum loop": ("tabla", "snare drum"),
    "synth bass": ("drone", "bass guitar"),
    "drone": ("synth bass", "whoosh"),
    "electronic blip": ("bell", "robot noise"),
    "bell": ("chime", "electronic blip", "cymbal"),
    "chime": ("bell", "xylophone"),
    "robot noise": ("electronic blip", "speech"),
    "whoosh": ("record scratch", "drone"),
    "record scratch": ("whoosh",),
    "electric guitar": ("guitar", "bass guitar"),
    "guitar": ("electric guitar", "piano"),
    "piano": ("guitar", "organ"),
    "organ": ("accordion", "choir"),
    "accordion": ("organ", "saxophone"),
    "choir": ("string orchestra", "speech"),
    "string orchestra": ("choir", "violin"),
    "violin": ("flute", "string orchestra"),
    "brass": ("saxophone", "violin"),
    "saxophone": ("brass", "flute"),
    "flute": ("violin", "organ"),
    "xylophone": ("chime", "piano"),
    "bass guitar": ("synth bass", "guitar"),
    "speech": ("robot noise", "choir"),
    "finger snap": ("snare drum", "tabla"),
}

ALIKE = (
    # The kinds of one family overlap for a listener.
    frozenset(("bell", "chime")),
    frozenset(("violin", "string orchestra")),
    frozenset(("electric guitar", "guitar")),
    frozenset(("synth bass", "bass guitar")),
    frozenset(("drum loop", "kick drum", "snare drum", "cymbal", "tom drum")),
)


def scene_events(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """All events in order, separated by commas."""
    if subject.scene is None:
        return IllPosed("no scene")
    return Question("scene_events", ", ".join(subject.scene.labels))


def scene_presence(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Whether one sound is heard. Half the absent ones sound like one that is there."""
    if subject.scene is None:
        return IllPosed("no scene")
    present = subject.scene.distinct
    if rng.random() < 0.5:
        label, answer = rng.choice(present), "yes"
    else:
        absent, near = surely_absent(present, context.scene_labels)
        label = rng.choice(near) if near and rng.random() < 0.5 else rng.choice(absent)
        answer = "no"
    return Question(
        "scene_presence",
        answer,
        slots={"event": with_article(label)},
        choices=("yes", "no"),
        answer_type="yes_no",
        guards=(Guard(f"scene_presence {label}", answer, ("yes", "no")),),
    )


def scene_order(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Which sound is first, last, or next to another one."""
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    labels, named = scene.labels, set(scene.labels)
    kind = rng.choice(("first", "last", "after", "before"))
    if kind in ("first", "last"):
        label = labels[0 if kind == "first" else -1]
        slots = {}
    else:
        step = 1 if kind == "after" else -1
        places = [place for place, name in enumerate(labels) if scene.only(name) and 0 <= place + step < len(labels)]
        if not places:
            return IllPosed(f"no event stands {kind} one that is heard once")
        place = rng.choice(places)
        label, slots = labels[place + step], {"reference": with_the(labels[place])}
        named.discard(labels[place])
    choices = tuple(rng.sample(sorted(named), len(named)))
    if len(choices) < 2:
        return IllPosed("fewer than two sounds to choose from")
    return Question("scene_order", label, kind, {**slots, "choices": listed(choices)}, choices, "choice")


def scene_count(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """How many sounds there are, or how often one of them is heard."""
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    if rng.random() < 0.6 and not scene.overlaps:
        space: tuple[str, ...] = NUMBERS[1:]
        answer = NUMBERS[len(scene.events) - 1]
        return Question(
            "scene_count",
            answer,
            "all",
            choices=space,
            answer_type="number",
            guards=(Guard("scene_count all", answer, space),),
        )
    label = rng.choice(scene.distinct)
    answer, space = NUMBERS[scene.labels.count(label) - 1], NUMBERS[:2]
    return Question(
        "scene_count", answer, "one", {"name": label}, space, "number", (Guard("scene_count one", answer, space),)
    )


def scene_compare(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Which of two sounds is longer, or louder; only where the margin is clear."""
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    if len(scene.single) < 2:
        return IllPosed("fewer than two sounds that are heard once")
    first, second = rng.sample(scene.single, 2)
    kind = rng.choice(("longer", "louder"))
    if kind == "louder" and "filter" in scene.effects:
        return IllPosed("a filter changes how loud a sound is")
    if kind == "longer" and ("reverb_seconds" in scene.effects or scene.overlaps):
        return IllPosed("the end of a sound is not heard")
    if kind == "longer":
        more, less = sorted((first, second), key=lambda event: -event.duration)
        clear = more.duration >= less.duration * LONGER_RATIO and more.duration - less.duration >= LONGER_SECONDS
    else:
        more, less = sorted((first, second), key=lambda event: -event.level_db)
        clear = more.level_db - less.level_db >= LOUDER_DB and more.peak_db - less.peak_db >= LOUDER_PEAK_DB
    if not clear:
        return IllPosed(f"no clear margin to call one {kind}")
    # Some sounds are long or loud by nature: each label must lose as often as it wins, or its name is the answer.
    guards = (
        Guard(f"scene_compare {kind}", "first" if more is first else "second", ("first", "second")),
        Guard(f"scene_compare {kind} {more.label}", "more", ("more", "less"), lead=2),
        Guard(f"scene_compare {kind} {less.label}", "less", ("more", "less"), lead=2),
    )
    return Question(
        "scene_compare",
        more.label,
        kind,
        {"first": with_the(first.label), "second": with_the(second.label)},
        (first.label, second.label),
        "choice",
        guards,
    )


def description(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """One sentence on a scene: its events in order."""
    if subject.scene is None:
        return IllPosed("no scene")
    if subject.scene.overlaps:
        return IllPosed("events overlap")
    parts = [with_article(label) for label in subject.scene.labels]
    return Question("description", f"{parts[0][0].upper()}{parts[0][1:]}, then {', then '.join(parts[1:])}.")


def same_to_an_ear(name: str, present: Sequence[str]) -> bool:
    """Whether a listener may take a sound for one that is there: a bell is not called absent where bells play."""
    return any(name in group and not group.isdisjoint(present) for group in ALIKE)


@lru_cache(maxsize=4096)
def surely_absent(present: tuple[str, ...], labels: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels that nobody can hear among those present, and those of them that sound like one of these."""
    absent = tuple(name for name in labels if name not in present and not same_to_an_ear(name, present))
    return absent, tuple(name for here in present for name in NEAR.get(here, ()) if name in absent)
