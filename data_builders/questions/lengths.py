"""Descriptions shorter and longer than the sentence of the task `description`: a few words, or all that is known."""

from __future__ import annotations

import random

from data_builders.questions.acoustic import described
from data_builders.questions.base import Context, IllPosed, Question, Subject, with_article
from data_builders.questions.speech import LONGEST_TRANSCRIPT_WORDS, num_words
from data_builders.scenes import Scene

COUNTS = ("No sound", "One sound", "Two sounds", "Three sounds", "Four sounds")
QUIET_DB, LOUD_DB = -32.0, -20.0
SHORT_SECONDS, LONG_SECONDS = 0.5, 1.2


def description_short(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """A few words: the labels, or the language."""
    clip, scene = subject.clip, subject.scene
    if scene is not None:
        first, *rest = scene.distinct
        return Question("description_short", f"{', '.join([first, *rest[:-1]])} and {rest[-1]}" if rest else first)
    if clip is None or (clip.kind == "speech" and (clip.language is None or num_words(clip.text) < 3)):
        return IllPosed("no label, and no language of three words")
    if clip.kind == "speech":
        return Question("description_short", f"{clip.language} speech")
    return Question("description_short", clip.label) if clip.label else IllPosed("no label")


def description_long(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Two sentences or more: every event with when it begins, how long and how loud it is; or a clip's facts."""
    clip, scene = subject.clip, subject.scene
    if scene is not None:
        return _scene(scene)
    if clip is None:
        return IllPosed("no clip")
    if clip.kind == "speech":
        if clip.language is None or not 3 <= num_words(clip.text) <= LONGEST_TRANSCRIPT_WORDS:
            return IllPosed("fewer than three words, or too many")
        return Question("description_long", f'Someone speaks {clip.language}. The words are: "{clip.text}"')
    told = list(described(subject).values())
    if clip.label is None or not told:
        return IllPosed("nothing is known beside the label")
    what = "Music played by" if clip.kind == "instrument" else "The sound of"
    features = f"{', '.join(told[:-1])} and {told[-1]}" if len(told) > 1 else told[0]
    return Question("description_long", f"{what} {with_article(clip.label)}. It is {features}.")


def _scene(scene: Scene) -> Question | IllPosed:
    if "filter" in scene.effects or "reverb_seconds" in scene.effects:
        return IllPosed("an effect changes how long and how loud a sound is")
    told = [f"{COUNTS[len(scene.events)]} can be heard."]
    for place, event in enumerate(scene.events):
        long = "short " if event.duration <= SHORT_SECONDS else "long " if event.duration >= LONG_SECONDS else ""
        loud = "quiet " if event.level_db <= QUIET_DB else "loud " if event.level_db >= LOUD_DB else ""
        name = with_article(event.label)
        what = f"a {loud}{long}sound of {name}" if loud or long else name
        side = f" on the {event.side}" if event.side else ""
        lead = "First" if place == 0 else "Then"
        told.append(f"{lead}, at {event.onset:.1f} seconds, {what}{side}.")
    if scene.overlaps:
        told.append("Some of them sound at the same time.")
    return Question("description_long", " ".join(told))
