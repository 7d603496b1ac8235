"""The families of questions, by task. A family reads the truth of one subject and gives a Question or IllPosed."""

from __future__ import annotations

from data_builders.questions import scenes, sounds, speech
from data_builders.questions.base import CANNOT_TELL, Context, Family, IllPosed, Question, Subject
from data_builders.questions.unanswerable import unanswerable

__all__ = ["CANNOT_TELL", "FAMILIES", "TASKS", "Context", "Family", "IllPosed", "Question", "Subject"]

FAMILIES: dict[str, tuple[Family, ...]] = {
    "transcription": (speech.transcription,),
    "spoken_language": (speech.spoken_language,),
    "spoken_digit": (speech.spoken_digit,),
    "spoken_letter": (speech.spoken_letter,),
    "spoken_word": (speech.spoken_word,),
    "translation": (speech.translation,),
    "sound_name": (sounds.sound_name,),
    "instrument_name": (sounds.instrument_name,),
    "scene_events": (scenes.scene_events,),
    "scene_presence": (scenes.scene_presence,),
    "scene_order": (scenes.scene_order,),
    "scene_count": (scenes.scene_count,),
    "scene_compare": (scenes.scene_compare,),
    "description": (speech.description, sounds.description, scenes.description),
    "unanswerable": (unanswerable,),
}
PAIRED: frozenset[str] = frozenset()
"""Tasks that ask about two clips."""
TASKS = tuple(FAMILIES)


def ask(task: str, subject: Subject, context: Context, rng) -> Question | IllPosed:
    """The question of the first family of a task that finds the subject well-posed, else why the last one does not."""
    result: Question | IllPosed = IllPosed("no family")
    for family in FAMILIES[task]:
        result = family(subject, context, rng)
        if isinstance(result, Question):
            break
    return result
