"""Questions about two clips: which one holds a sound, holds more sounds, or lasts longer."""

from __future__ import annotations

import random

from data_builders.questions.base import Context, Guard, IllPosed, Question, Subject, with_article
from data_builders.questions.scenes import same_to_an_ear
from data_builders.scenes import Scene

FIRST_SECOND = ("the first", "the second")
LONGER_CLIP_RATIO = 1.4


def pair_contains(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """In which of two scenes a sound is heard."""
    scenes = _two_scenes(subject)
    if isinstance(scenes, IllPosed):
        return scenes
    place = rng.randrange(2)
    here, there = scenes[place], scenes[1 - place]
    only = [name for name in sorted(set(here.labels) - set(there.labels)) if not same_to_an_ear(name, there.labels)]
    if not only:
        return IllPosed("no sound is in one scene alone")
    label, answer = rng.choice(only), FIRST_SECOND[place]
    guards = (Guard(f"pair_contains {label}", answer, FIRST_SECOND),)
    return Question("pair_contains", answer, "default", {"event": with_article(label)}, FIRST_SECOND, "choice", guards)


def pair_more(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Which of two scenes holds more sounds."""
    scenes = _two_scenes(subject)
    if isinstance(scenes, IllPosed):
        return scenes
    counts = [len(scene.events) for scene in scenes]
    if counts[0] == counts[1]:
        return IllPosed("as many sounds in both")
    if any(scene.overlaps for scene in scenes):
        return IllPosed("events overlap")
    answer = FIRST_SECOND[counts.index(max(counts))]
    guards = (Guard("pair_more", answer, FIRST_SECOND),)
    return Question("pair_more", answer, choices=FIRST_SECOND, answer_type="choice", guards=guards)


def pair_same(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Whether two scenes begin with the same kind of sound."""
    scenes = _two_scenes(subject)
    if isinstance(scenes, IllPosed):
        return scenes
    first, second = scenes[0].labels[0], scenes[1].labels[0]
    if first != second and same_to_an_ear(first, [second]):
        return IllPosed("two sounds that a listener takes for one")
    answer = "yes" if first == second else "no"
    guards = (Guard("pair_same", answer, ("yes", "no"), lead=3),)
    return Question("pair_same", answer, choices=("yes", "no"), answer_type="yes_no", guards=guards)


def _two_scenes(subject: Subject) -> tuple[Scene, Scene] | IllPosed:
    if subject.scene is None or subject.second is None or subject.second.scene is None:
        return IllPosed("no two scenes")
    return subject.scene, subject.second.scene
