"""Questions made of other families': multiple choice with letters, conversations of several turns, and options that do
not fit (two of AQUA-Bench's three kinds of unanswerable questions; `unanswerable.py` has the third).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from data_builders.questions import scenes, sounds
from data_builders.questions.base import CANNOT_TELL, Context, Family, Guard, IllPosed, Question, Subject, name_guards
from data_builders.questions.relations import absent_labels
from data_builders.questions.speech import listed

LETTERS = ("A", "B", "C", "D")
NONE_OF_THESE = "None of these."
COLOURS = ("red", "blue", "green", "yellow", "purple", "white", "black", "orange")
TURNS = 3
TURN_FAMILIES: tuple[Family, ...] = (
    scenes.scene_presence,
    scenes.scene_order,
    scenes.scene_count,
    scenes.scene_compare,
    scenes.scene_events,
)


def multiple_choice(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Four lettered options, one of them heard at the start or end. Places are uniform, lengths close, one a near miss.

    The wrong ones are absent from the scene, so that no order of events makes a second option right.
    """
    scene = subject.scene
    if scene is None:
        return IllPosed("no scene")
    kind = rng.choice(("first", "last"))
    answer = scene.labels[0 if kind == "first" else -1]
    absent, near = absent_labels(scene, context)
    if len(absent) < len(LETTERS) - 1:
        return IllPosed("too few sounds are surely absent")
    wrong = matched_lengths(answer, absent, near, len(LETTERS) - 1, rng)
    place = rng.randrange(len(LETTERS))
    options = [*wrong[:place], answer, *wrong[place:]]
    slots = {"options": " ".join(f"({letter}) {name}" for letter, name in zip(LETTERS, options, strict=True))}
    guards = (
        Guard("multiple_choice", LETTERS[place], LETTERS),
        *name_guards("multiple_choice", answer, wrong, rng),
    )
    return Question(
        "multiple_choice", LETTERS[place], kind, slots, LETTERS, "choice", guards, meta={"options": options}
    )


def matched_lengths(
    answer: str, absent: Sequence[str], near: Sequence[str], number: int, rng: random.Random
) -> list[str]:
    """Wrong options: a near miss if there is one, then those closest to the answer in length, some longer than it."""
    width = len(answer)
    chosen = [rng.choice(near)] if near else []
    shuffled = rng.sample(absent, len(absent))
    if number - len(chosen) > 1:
        longer = [name for name in shuffled if len(name) >= width and name not in chosen]
        chosen += [min(longer, key=len)] if longer else []
    rest = sorted([name for name in shuffled if name not in chosen], key=lambda name: abs(len(name) - width))
    return rng.sample([*chosen, *rest][:number], number)


def dialogue(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """Up to three different questions about one scene, one after another."""
    if subject.scene is None:
        return IllPosed("no scene")
    asked: list[Question] = []
    for family in rng.sample(TURN_FAMILIES, len(TURN_FAMILIES)):
        question = family(subject, context, rng)
        if isinstance(question, Question) and len(asked) < TURNS:
            asked.append(question)
    if len(asked) < 2:
        return IllPosed("fewer than two questions can be asked")
    *earlier, last = asked
    return Question(
        "dialogue",
        last.answer,
        f"{last.task}/{last.wording}",
        last.slots,
        last.choices,
        last.answer_type,
        tuple(guard for question in asked for guard in question.guards),
        earlier=tuple(earlier),
    )


def right_option_missing(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """A sound or an instrument with options that are all wrong, in the words that are used where one is right."""
    clip = subject.clip
    if clip is None or clip.kind == "speech" or clip.label is None:
        return IllPosed("no single sound or instrument")
    labels = context.sound_labels if clip.kind == "sound" else context.instrument_labels
    wrong = [name for name in labels if name != clip.label and not scenes.same_to_an_ear(name, [clip.label])]
    if len(wrong) < sounds.NUM_LISTED:
        return IllPosed("too few other labels")
    choices = tuple(rng.sample(wrong, sounds.NUM_LISTED))
    wording = "sound_name/listed" if clip.kind == "sound" else "instrument_name/listed"
    return Question("unanswerable_options", NONE_OF_THESE, wording, {"choices": listed(choices)})


def options_of_another_kind(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """A question about the sound whose options are no sounds."""
    clip = subject.clip
    if clip is None or clip.kind == "speech" or clip.label is None:
        return IllPosed("no single sound or instrument")
    wording = "sound_name/listed" if clip.kind == "sound" else "instrument_name/listed"
    choices = tuple(rng.sample(COLOURS, sounds.NUM_LISTED))
    return Question("unanswerable_options", NONE_OF_THESE, wording, {"choices": listed(choices)})


def unanswerable_options(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """One of the two kinds of options that do not fit, the harder one more often."""
    return (right_option_missing if rng.random() < 0.75 else options_of_another_kind)(subject, context, rng)


def unanswerable_unrelated(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """What no recording tells: where it was made, who made it."""
    if subject.clip is None and subject.scene is None:
        return IllPosed("no clip")
    return Question("unanswerable_unrelated", CANNOT_TELL, "unanswerable/default")
