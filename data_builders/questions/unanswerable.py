"""Questions that the clip cannot answer: another family's question, in the same words, of the wrong kind of clip.

The words never give it away, since the same words are asked of clips that do answer them.
"""

from __future__ import annotations

import random

from data_builders.questions.base import CANNOT_TELL, Context, IllPosed, Question, Subject


def unanswerable(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """What is said, of a clip without speech; which instrument, of speech; which digit, of a drum.

    `wording` is "TASK/LIST": a list of another family's wordings.
    """
    clip = subject.clip
    if clip is None:
        return IllPosed("a scene may hold anything")
    if clip.kind == "speech":
        wanted = ["instrument_name/default"]
    elif clip.kind == "instrument":
        wanted = ["transcription/default", "spoken_digit/within", "spoken_language/open", "translation/default"]
    else:
        wanted = ["transcription/default", "spoken_digit/within", "spoken_language/open", "instrument_name/default"]
    if clip.label in {"electric guitar", "tabla", "synth bass", "drum loop", "bell", "drone"}:
        wanted = wanted[:3]
    return Question("unanswerable", CANNOT_TELL, rng.choice(wanted), {"target": "English", "language": "English"})
