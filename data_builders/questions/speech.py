"""Questions about running speech and about single words: transcript, language, digit, letter, word, translation."""

from __future__ import annotations

import random

from data_builders.clips import LANGUAGES
from data_builders.questions.base import Context, Guard, IllPosed, Question, Subject
from data_builders.sources.asterisk import DIGITS, PHONETIC, normalised

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LONGEST_TRANSCRIPT_WORDS = 24


def transcription(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The words as spoken. Not of a letter said alone: its spelling is another question."""
    clip = subject.clip
    if clip is None or clip.text is None:
        return IllPosed("no transcript")
    if "letter" in clip.facts or "word" in clip.facts:
        return IllPosed("a letter or code word is asked by its own family")
    if len(normalised(clip.text).split()) > LONGEST_TRANSCRIPT_WORDS:
        return IllPosed("too long")
    return Question("transcription", clip.text, answer_type="transcript")


def spoken_language(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The language, of at least three words: a short word may belong to two languages."""
    clip = subject.clip
    if clip is None or clip.language is None:
        return IllPosed("no speech")
    if num_words(clip.text) < 3:
        return IllPosed("fewer than three words")
    if clip.language not in LANGUAGES:
        return IllPosed("not one of the languages that are asked for")
    choices = tuple(rng.sample(LANGUAGES, len(LANGUAGES)))
    return Question(
        "spoken_language",
        clip.language,
        slots={"choices": listed(choices)},
        choices=choices,
        answer_type="choice",
        guards=(Guard("spoken_language", clip.language, LANGUAGES),),
    )


def spoken_digit(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The digit that is said, alone or in a prompt that names exactly one; answered in English."""
    return _closed(subject, "spoken_digit", "digit", DIGITS)


def spoken_letter(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The letter that is said. The question names the language: one sound is E in one and I in another."""
    return _closed(subject, "spoken_letter", "letter", LETTERS)


def spoken_word(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The word of the phonetic alphabet that is said, in its English spelling."""
    return _closed(subject, "spoken_word", "word", PHONETIC)


def translation(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """The same prompt's text in another language, into English more often than not."""
    clip = subject.clip
    if clip is None or clip.language is None or clip.facts.get("alone"):
        return IllPosed("no prompt")
    known = {**context.translations.get(clip.facts.get("key", ""), {}), **clip.facts.get("translations", {})}
    own = len(normalised(clip.text or "").split())
    others = [language for language in LANGUAGES if language != clip.language and language in known]
    others = [name for name in others if 0.4 <= len(normalised(known[name]).split()) / max(own, 1) <= 2.5]
    if not others or not 2 <= own <= LONGEST_TRANSCRIPT_WORDS:
        return IllPosed("no prompt of the same meaning and length in another language")
    target = "English" if "English" in others and rng.random() < 0.6 else rng.choice(others)
    if normalised(known[target]) == normalised(clip.text or ""):
        return IllPosed("the same words in both languages")
    return Question("translation", known[target], slots={"target": target})


def description(subject: Subject, context: Context, rng: random.Random) -> Question | IllPosed:
    """One sentence on what a clip of speech is."""
    clip = subject.clip
    if clip is None or clip.language is None:
        return IllPosed("no speech")
    if num_words(clip.text) < 3:
        return IllPosed("fewer than three words")
    return Question(
        "description",
        f"Someone speaks {clip.language}.",
        guards=(Guard("description of speech", clip.language, LANGUAGES),) if clip.language in LANGUAGES else (),
    )


def _closed(subject: Subject, task: str, fact: str, members: tuple[str, ...]) -> Question | IllPosed:
    clip = subject.clip
    if clip is None or fact not in clip.facts:
        return IllPosed(f"no {fact} is known")
    wording = "alone" if clip.facts.get("alone") else "within"
    return Question(
        task,
        clip.facts[fact],
        wording=wording,
        slots={"language": clip.facts.get("letter_names") or clip.language or ""},
        choices=members,
        answer_type="choice",
    )


def num_words(text: str | None) -> int:
    """Words of two letters or more; spelled-out letters and numerals are the same signs in every language."""
    return sum(len(word) > 1 and not word.isdigit() for word in normalised(text or "").split())


def listed(names: tuple[str, ...] | list[str]) -> str:
    """ "A, B or C"."""
    return f"{', '.join(names[:-1])} or {names[-1]}"
