"""Questions about one sound or one instrument: its name, and a sentence on it."""

from __future__ import annotations

import random

from data_builders.questions.base import Context, IllPosed, Question, Subject, with_article
from data_builders.questions.speech import listed

NUM_LISTED = 4


def sound_name(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The label of a sound, freely or from four options."""
    clip = subject.clip
    if clip is None or clip.kind != "sound":
        return IllPosed("no single sound")
    return _name("sound_name", clip.label or "", context.sound_labels, rng)


def instrument_name(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The name of the instrument that plays, freely or from four options."""
    clip = subject.clip
    if clip is None or clip.kind != "instrument":
        return IllPosed("no single instrument")
    return _name("instrument_name", clip.label or "", context.instrument_labels, rng)


def description(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """One sentence on a sound or an instrument."""
    clip = subject.clip
    if clip is None or clip.kind == "speech" or clip.label is None:
        return IllPosed("no single sound or instrument")
    if clip.kind == "instrument":
        return Question("description", f"Music played by {with_article(clip.label)}.")
    return Question("description", f"The sound of {with_article(clip.label)}.")


def _name(task: str, label: str, labels: tuple[str, ...], rng: random.Random) -> Question | IllPosed:
    if label not in labels:
        return IllPosed(f"'{label}' has too few recordings to be asked for")
    others = rng.sample([name for name in labels if name != label], min(NUM_LISTED, len(labels)) - 1)
    options = [label, *others]
    rng.shuffle(options)
    if rng.random() < 0.5:
        return Question(task, label, "listed", {"choices": listed(options)}, tuple(options), "choice")
    return Question(task, label, choices=labels, answer_type="choice")
