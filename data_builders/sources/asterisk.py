"""The Asterisk telephone prompts: read speech in five languages, one voice each, 8 kHz, with transcripts.

Packages: asterisk-core-sounds-{en,es,fr,it,ru}-wav hold the recordings; the transcripts are in the packages without
`-wav`, as `core-sounds-XX.txt.gz` (`key: text` lines). Traps of this corpus, each handled below: the same prompt
says the same thing in every language (so a split must take all five); sex is confounded with language (only Italian is
male: sex is never asked); a text in brackets describes a tone or a silence, or is a note to the reader; some Italian
accents were lost to `?`; some files are empty or have no text; a few transcripts belong to another file.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from pathlib import Path

from data_builders.clips import LANGUAGES, Clip, Skipped
from data_builders.debs import Fetched, Package
from lalm.audio.io import probe_audio
from lalm.errors import AudioError, DataError

_CODES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}
_LICENCES = {"en": "CC-BY-SA-3.0", "es": "CC-BY-SA-3.0", "fr": "CC-BY-SA-3.0", "it": "CC-BY-3.0", "ru": "CC-BY-3.0"}
_SHA256 = {
    "en": (
        "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
        "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
    ),
    "es": (
        "9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74",
        "9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903",
    ),
    "fr": (
        "04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056",
        "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e",
    ),
    "it": (
        "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b",
        "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb",
    ),
    "ru": (
        "28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab",
        "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201",
    ),
}
PACKAGES = tuple(
    package
    for code, (texts, sounds) in _SHA256.items()
    for package in (
        Package(f"asterisk-core-sounds-{code}", ("core-sounds-" + code + ".txt.gz", "copyright"), {"1.6.1-1": texts}),
        Package(f"asterisk-core-sounds-{code}-wav", (".wav",), {"1.6.1-1": sounds}),
    )
)

SHORTEST_SECONDS = 0.1
SAME_SHARE = 0.75
"""Two texts with this share of their words in common are one prompt: "your password" and "your new password"."""
_NOT_SPEECH = re.compile(
    r"^(silence/.*|beep|beeperr|ascending-2tone|descending-2tone|confbridge-(join|leave)|tt-monkeys)$"
)
_ACRONYM = re.compile(r"^spy-(dahdi|h323|iax2?|mgcp|misdn|nbs|sip)$")
"""Protocol names, spelled or read in any manner: neither their text nor their language can be relied on."""
_WRONG = {("es", "digits/0", "diez"), ("fr", "digits/h-80", "soixante-dixième"), ("es", "phonetic/9_p", "noveno")}
"""Lines whose text is another file's: the Spanish ten stands as a second zero, the French eightieth as seventieth."""
_NUMBER_WORDS = {
    "en": "zero one two three four five six seven eight nine",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf",
    "it": "zero uno due tre quattro cinque sei sette otto nove",
    "ru": "ноль один два три четыре пять шесть семь восемь девять",
}
DIGITS = tuple(_NUMBER_WORDS["en"].split())
PHONETIC = (
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliet",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
    "quebec",
    "romeo",
    "sierra",
    "tango",
    "uniform",
    "victor",
    "whiskey",
    "x-ray",
    "yankee",
    "zulu",
)
_OWN_PHONETIC = {"es": "c f g j m n q s u x", "it": "a b c d e f g i j k l m n o p q r s t u v w x y z", "ru": "x"}
"""Letters whose Spanish or Italian word is not the international one (Carlos, Francia, a come Ancona); the Russian X is
translated (Рентген)."""
_LETTER_SOUNDS = {
    # languages whose names of the letter sound alike: a held-out recording needs one of the same group in training
    **dict.fromkeys("ao", "en ru|fr es it"),
    **dict.fromkeys("bdpt", "en ru it|fr es"),
    **dict.fromkeys("flmns", "en ru fr|es it"),
    **dict.fromkeys("equ", "en ru|es it"),
    **dict.fromkeys("ky", "en ru|fr es"),
    **dict.fromkeys("hjvwx", "en ru"),
    "c": "en ru|fr es",
    "g": "en ru it",
    "i": "en ru|fr es it",
    "r": "en ru|es it",
    "z": "es it",
}


def read_clips(fetched: dict[str, Fetched], seed: int) -> tuple[list[Clip], list[Skipped]]:
    """Every recording that holds speech and has a usable transcript.

    Facts: `key` (the prompt's name, lower case, the same in all languages), `digit` (its word, where the clip names
    exactly one digit), `letter` and `letter_names` (the language it is named in), `word` (of the phonetic alphabet),
    `alone` (the digit, letter or word is all that is said), `sounds_like` (what such recordings of one sound share).
    """
    clips, skipped = [], []
    for code, language in _CODES.items():
        sounds = fetched[f"asterisk-core-sounds-{code}-wav"]
        texts, rejected = read_texts(_text_file(fetched[f"asterisk-core-sounds-{code}"]), code)
        rejected = [(key, reason) for key, reason in rejected if not (_NOT_SPEECH.match(key) or _ACRONYM.match(key))]
        skipped += [Skipped(_clip_id(code, key), reason) for key, reason in rejected]
        for member in sounds.members:
            path = sounds.folder / member
            key = member.split("/sounds/")[1].split("/", 1)[1].removesuffix(".wav").lower()
            clip_id = _clip_id(code, key)
            if _NOT_SPEECH.match(key) or _ACRONYM.match(key) or key in dict(rejected):
                continue
            if key not in texts:
                skipped.append(Skipped(clip_id, "no text for this file"))
                continue
            try:
                seconds = probe_audio(path).seconds
            except AudioError as error:
                skipped.append(Skipped(clip_id, str(error).removeprefix(f"{path}: ")))
                continue
            if seconds < SHORTEST_SECONDS:
                skipped.append(Skipped(clip_id, f"lasts {seconds:.2f} s: holds no speech"))
                continue
            if not 1.5 <= len(texts[key]) / max(seconds, 0.8) <= 30 and "/" not in key:
                skipped.append(
                    Skipped(clip_id, f"{len(texts[key])} letters in {seconds:.1f} s: text and file disagree")
                )
                continue
            clips.append(
                Clip(
                    id=clip_id,
                    path=path,
                    seconds=seconds,
                    source=sounds.name,
                    licence=_LICENCES[code],
                    group=f"asterisk-{key}",
                    kind="speech",
                    language=language,
                    text=texts[key],
                    facts={"key": key, **_facts(key, code)},
                    provenance={"package": sounds.name, "version": sounds.version, "file": member.split("/sounds/")[1]},
                )
            )
    return _with_digits(_with_groups(clips)), skipped


def read_texts(path: Path, code: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The transcripts by key, cleaned, and (key, reason) of those that cannot be trusted.

    Raises:
        DataError: for a file that is not gzip or not UTF-8.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
            rows = [line.strip().split(":", 1) for line in lines if ":" in line and not line.lstrip().startswith(";")]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a transcript ({error}). Delete its folder and run again.") from None
    texts: dict[str, str] = {}
    rejected = []
    for key, text in ((key.strip().lower(), text.strip()) for key, text in rows):
        reason = _problem(text) if (code, key, text) not in _WRONG else "the text is another file's"
        if reason:
            rejected.append((key, reason))
        else:
            texts.setdefault(key, clean_text(text))
    return texts, rejected


def clean_text(text: str) -> str:
    """What is said, as a reader would write it: without symbols in brackets, leading dots and double spaces."""
    text = re.sub(r"\[.?\]", " ", text)
    text = re.sub(r"\.{2,}|…", " ", text)
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\s+([.,!?])", r"\1", text)


def normalised(text: str) -> str:
    """For comparing two transcripts: lower case, words only."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def _problem(text: str) -> str | None:
    bare = re.sub(r"\[.?\]", "", text)
    if not normalised(bare):
        return "no text"
    if re.search(r"[\[\](){}<>]", bare):
        return "the text holds a note to the reader"
    if re.search(r"\w\?+\s*[a-zà-ù]|\s\?\s", bare):
        return "the text lost its accents"
    return None


def _clip_id(code: str, key: str) -> str:
    return f"asterisk-{code}-{key.replace('/', '-').replace('_', '-')}"


def _text_file(package: Fetched) -> Path:
    return package.folder / next(name for name in package.members if name.endswith(".txt.gz"))


def _facts(key: str, code: str) -> dict[str, object]:
    folder, _, name = key.rpartition("/")
    if folder == "digits" and name in "0123456789" and len(name) == 1:
        return {"digit": DIGITS[int(name)], "alone": True, "sounds_like": f"digit {name}"}
    if folder == "letters" and len(name) == 1 and name.isalpha():
        names = "English" if code == "ru" else _CODES[code]
        alike = f"letter {name} {_letter_sound(name, code)}"
        return {"letter": name.upper(), "letter_names": names, "alone": True, "sounds_like": alike}
    if folder == "phonetic" and re.fullmatch("[a-z]_p", name) and name[0] not in _OWN_PHONETIC.get(code, "").split():
        word = PHONETIC[ord(name[0]) - ord("a")]
        return {"word": word, "alone": True, "sounds_like": f"word {word}"}
    return {}


def _letter_sound(letter: str, code: str) -> str:
    """The languages that name a letter alike, the one asked for included; the Russian voice reads English names."""
    for names in _LETTER_SOUNDS[letter].split("|"):
        if code in names.split():
            return names
    return code


def _with_digits(clips: list[Clip]) -> list[Clip]:
    """Marks the prompts that name exactly one digit, by the English text, and only where the own text agrees."""
    english = {clip.facts["key"]: _digits_of(clip.text or "", "en") for clip in clips if clip.language == "English"}
    codes = {language: code for code, language in _CODES.items()}
    for clip in clips:
        found = english.get(clip.facts["key"], [])
        if len(found) == 1 and not clip.facts["key"].startswith(("spy-", "digits/", "letters/", "phonetic/")):
            own = _digits_of(clip.text or "", codes[clip.language or ""])
            if set(own) == set(found) and len(own) == 1:
                clip.facts["digit"] = DIGITS[found[0]]
    return clips


def _digits_of(text: str, code: str) -> list[int]:
    """The digits that a text names, as numerals or words; [] also where it holds a longer number."""
    words = _NUMBER_WORDS[code].split()
    found = []
    for token in normalised(text).split():
        if token.isdigit():
            found.append(int(token))
        elif token in words:
            found.append(words.index(token))
    return found if all(digit < 10 for digit in found) else []


def _with_groups(clips: list[Clip]) -> list[Clip]:
    """One group for the prompts that share a key (in any language) or, within a language, the words or nearly so.

    A digit, letter or word said alone is a recording of its own: the set it belongs to is closed, so the test
    asks for another recording of a known word, never for an unknown word.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    prompts = [clip for clip in clips if not clip.facts.get("alone")]
    for language in LANGUAGES:
        seen: list[tuple[frozenset[str], str]] = []
        for clip in prompts:
            if clip.language == language:
                words = frozenset(normalised(clip.text or "").split())
                for other, group in seen:
                    if words == other or (
                        len(words | other) >= 4 and len(words & other) >= SAME_SHARE * len(words | other)
                    ):
                        first, second = root(clip.group), root(group)
                        parent[max(first, second)] = min(first, second)
                seen.append((words, clip.group))
    return [replace(clip, group=clip.id if clip.facts.get("alone") else root(clip.group)) for clip in clips]
