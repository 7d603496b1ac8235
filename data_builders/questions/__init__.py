"""The families of questions, by task. A family reads the truth of one subject and gives a Question or IllPosed."""

from __future__ import annotations

from data_builders.questions import (
    acoustic,
    composed,
    constraints,
    keywords,
    lengths,
    music,
    pairs,
    relations,
    scenes,
    sounds,
    speech,
    told,
)
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
    "description": (told.caption, speech.description, sounds.description, scenes.description),
    "unanswerable": (unanswerable,),
    "scene_absent": (relations.scene_absent,),
    "scene_between": (relations.scene_between,),
    "scene_before": (relations.scene_before,),
    "scene_duration": (relations.scene_duration,),
    "scene_most": (relations.scene_most,),
    "scene_overlap": (relations.scene_overlap,),
    "scene_side": (relations.scene_side,),
    "note_count": (music.note_count,),
    "melody_direction": (music.melody_direction,),
    "interval": (music.interval,),
    "pitch": (music.pitch,),
    "tempo": (music.tempo,),
    "pair_contains": (pairs.pair_contains,),
    "pair_more": (pairs.pair_more,),
    "pair_same": (pairs.pair_same,),
    "multiple_choice": (composed.multiple_choice,),
    "dialogue": (composed.dialogue,),
    "instruction": (constraints.instruction,),
    "unanswerable_options": (composed.unanswerable_options,),
    "unanswerable_unrelated": (composed.unanswerable_unrelated,),
    "told_question": (told.told_question,),
    "emotion": (told.emotion,),
    "pair_speaker": (told.pair_speaker,),
    "event_order": (told.event_order,),
    "tempo_bpm": (told.tempo_bpm,),
    "musical_key": (told.musical_key,),
    "keyword": (keywords.keyword,),
    "acoustic_feature": (acoustic.acoustic_feature,),
    "acoustic_features": (acoustic.acoustic_features,),
    "pair_brighter": (acoustic.pair_brighter,),
    "description_short": (lengths.description_short,),
    "description_long": (lengths.description_long,),
    "chord": (music.chord,),
}
PAIRED = frozenset(("pair_contains", "pair_more", "pair_same", "pair_speaker", "pair_brighter"))
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
