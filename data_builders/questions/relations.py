"""Questions on how the events of a scene stand to each other: absent, between, before, overlap, side, longest, loudest.

Each declares when it is ill-posed: a reference must be the only event of its label, a difference must be clear, and an
effect of the whole scene (a filter, reverberation) rules out what it blurs.
"""

from __future__ import annotations

import random

from data_builders.questions.base import (
    Context,
    Guard,
    IllPosed,
    Question,
    Subject,
    name_guards,
    with_article,
    with_the,
)
from data_builders.questions.scenes import LONGER_RATIO, LONGER_SECONDS, LOUDER_DB, LOUDER_PEAK_DB, surely_absent
from data_builders.questions.speech import listed
from data_builders.scenes import Event, Scene

YES_NO = ("yes", "no")
DURATIONS = {0.5: "half a second", 1.0: "one second", 1.5: "one and a half seconds"}
DURATION_SLACK_SECONDS = 0.15
CLEAR_OVERLAP_SECONDS, CLEAR_GAP_SECONDS = 0.15, 0.08


def absent_labels(scene: Scene, context: Context) -> tuple[tuple[str, ...], list[str]]:
    """Labels that are surely absent, and those of them that sound like one that is there (near misses)."""
    absent, near = surely_absent(scene.distinct, context.scene_labels)
    return absent, sorted(set(near))


def scene_absent(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Which of some sounds is not heard; half the time it sounds like one that is."""
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    present = scene.distinct
    if len(present) < 2:
        return IllPosed("fewer than two sounds to choose from")
    absent, near = absent_labels(scene, context)
    if not absent:
        return IllPosed("no sound is surely absent")
    answer = rng.choice(near) if near and rng.random() < 0.5 else rng.choice(absent)
    shown = rng.sample(present, min(3, len(present)))
    choices = tuple(rng.sample([answer, *shown], len(shown) + 1))
    guards = name_guards("scene_absent", answer, shown, rng)
    return Question("scene_absent", answer, "default", {"choices": listed(choices)}, choices, "choice", guards)


def scene_between(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """What is heard between two sounds, each heard once."""
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    if scene.overlaps:
        return IllPosed("events overlap")
    labels = scene.labels
    places = [
        place for place in range(1, len(labels) - 1) if scene.only(labels[place - 1]) and scene.only(labels[place + 1])
    ]
    if not places:
        return IllPosed("no sound stands between two that are heard once")
    place = rng.choice(places)
    first, answer, last = labels[place - 1 : place + 2]
    absent, near = absent_labels(scene, context)
    others = sorted({name for name in labels if name not in (first, last, answer)})
    others = others or rng.sample(near or absent, min(2, len(near or absent)))
    choices = tuple(rng.sample([answer, *others[:2]], 1 + len(others[:2])))
    if len(choices) < 2:
        return IllPosed("fewer than two sounds to choose from")
    slots = {"first": with_the(first), "last": with_the(last), "choices": listed(choices)}
    guards = name_guards("scene_between", answer, others[:2], rng)
    return Question("scene_between", answer, "default", slots, choices, "choice", guards)


def scene_before(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Whether one sound begins before another."""
    pair = _two_single_events(subject, rng)
    if isinstance(pair, IllPosed):
        return pair
    kind = rng.choice(("before", "after"))
    first, second = pair
    earlier = first.onset < second.onset
    answer = "yes" if earlier == (kind == "before") else "no"
    slots = {"first": with_the(first.label), "second": with_the(second.label)}
    labels = " ".join(sorted((first.label, second.label)))
    guards = (
        Guard(f"scene_before {kind}", answer, YES_NO),
        Guard(f"scene_before {labels}", min(pair, key=lambda event: event.onset).label, (first.label, second.label)),
    )
    return Question("scene_before", answer, kind, slots, YES_NO, "yes_no", guards)


def scene_duration(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """About how long one sound lasts, where it lies near one of a few lengths. Not of a reverberant scene."""
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    if scene.overlaps or "reverb_seconds" in scene.effects:
        return IllPosed("the end of a sound is not heard")
    fitting = [
        (event, text)
        for event in scene.events
        for seconds, text in DURATIONS.items()
        if scene.only(event.label) and abs(event.duration - seconds) <= DURATION_SLACK_SECONDS
    ]
    if not fitting:
        return IllPosed("no sound is clearly of one of the lengths")
    event, answer = rng.choice(fitting)
    choices = tuple(DURATIONS.values())
    guards = (
        Guard("scene_duration", answer, choices),
        Guard(f"scene_duration {event.label}", answer, choices, lead=2),
    )
    slots = {"event": with_the(event.label), "choices": listed(choices)}
    return Question("scene_duration", answer, "default", slots, choices, "choice", guards)


def scene_most(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Which sound is the loudest, quietest, longest or shortest of all, by a clear margin."""
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    if len(scene.single) < len(scene.events):
        return IllPosed("a sound is heard twice")
    if scene.overlaps or "filter" in scene.effects:
        return IllPosed("a filter or an overlap changes what is heard of a sound")
    kind = rng.choice(("loudest", "quietest", "longest", "shortest"))
    if kind in ("longest", "shortest") and "reverb_seconds" in scene.effects:
        return IllPosed("the end of a sound is not heard")
    loud = kind in ("loudest", "quietest")
    ordered = sorted(scene.events, key=lambda event: event.level_db if loud else event.duration)
    if kind in ("loudest", "longest"):
        ordered.reverse()
    best, second = ordered[:2]
    more, less = (best, second) if kind in ("loudest", "longest") else (second, best)
    if loud:
        clear = more.level_db - less.level_db >= LOUDER_DB and more.peak_db - less.peak_db >= LOUDER_PEAK_DB
    else:
        clear = more.duration >= less.duration * LONGER_RATIO and more.duration - less.duration >= LONGER_SECONDS
    if not clear:
        return IllPosed(f"no clear margin to call one the {kind}")
    choices = tuple(rng.sample(scene.labels, len(scene.labels)))
    guards = name_guards(f"scene_most {kind}", best.label, [name for name in choices if name != best.label], rng)
    return Question("scene_most", best.label, kind, {"choices": listed(choices)}, choices, "choice", guards)


def scene_overlap(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Whether two neighbouring sounds are heard at the same time. Not of a reverberant scene."""
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    if "reverb_seconds" in scene.effects:
        return IllPosed("the end of a sound is not heard")
    wanted = rng.random() < 0.5
    pairs = []
    for first, second in zip(scene.events, scene.events[1:], strict=False):
        shared = min(first.end, second.end) - second.onset
        clear = shared >= CLEAR_OVERLAP_SECONDS if wanted else shared <= -CLEAR_GAP_SECONDS
        if scene.only(first.label) and scene.only(second.label) and clear:
            pairs.append((first, second))
    if not pairs:
        return IllPosed("no two sounds clearly overlap" if wanted else "no two sounds are clearly apart")
    first, second = rng.sample(rng.choice(pairs), 2)
    answer = "yes" if wanted else "no"
    slots = {"first": with_the(first.label), "second": with_the(second.label)}
    # Short sounds are never covered: each label must stand on both sides alike, or its name is the answer.
    guards = (
        Guard("scene_overlap", answer, YES_NO),
        Guard(f"scene_overlap {first.label}", answer, YES_NO, lead=2),
        Guard(f"scene_overlap {second.label}", answer, YES_NO, lead=2),
    )
    return Question("scene_overlap", answer, "default", slots, YES_NO, "yes_no", guards)


def scene_side(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """From which side a sound comes, in a scene of two channels."""
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    placed = [event for event in scene.events if event.side and scene.only(event.label)]
    if not placed:
        return IllPosed("no sound that is heard once has a side")
    event = rng.choice(placed)
    sides = ("left", "right")
    guards = (Guard("scene_side", event.side or "", sides), Guard(f"scene_side {event.label}", event.side or "", sides))
    slots = {"event": with_the(event.label), "name": with_article(event.label)}
    return Question("scene_side", event.side or "", "default", slots, sides, "choice", guards)


def _two_single_events(subject: Subject, rng: random.Random) -> tuple[Event, Event] | IllPosed:
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    if len(scene.single) < 2:
        return IllPosed("fewer than two sounds that are heard once")
    first, second = rng.sample(scene.single, 2)
    return first, second
