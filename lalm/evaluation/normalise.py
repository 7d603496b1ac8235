"""The stated normalisations: what of a reply counts when it is compared with the truth.

`exact_form` is for short answers in any language; `transcript_form` is for words that were spoken (Latin and Cyrillic
scripts). Both drop case and punctuation; only the first drops English articles and reads English number words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

ARTICLES = frozenset({"a", "an", "the"})

_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {word: value for value, word in enumerate(_UNITS + _TEENS)}
_TENS_VALUE = {word: 10 * value for value, word in enumerate(_TENS, start=2)}

_JOINERS = str.maketrans("", "", "'’ʼ`´")
_NUMBER_TOKEN = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?|[^\W\d_]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")

ABSTENTIONS = (
    r"(cannot|can not|cant|couldnt|could not) (really )?(be|tell|say|know|determine|answer)",
    r"(do|does|did) not (say|tell|reveal|know)",
    r"(dont|doesnt|didnt) (say|tell|reveal|know)",
    r"not (possible|enough information|answerable|clear|known|stated|given)",
    r"no way to (tell|know|say)",
    r"(impossible|unable) to (tell|say|know|determine|answer)",
    r"unanswerable",
)
"""How an answer that declines to answer opens (apostrophes gone, casefolded)."""

_OPENERS = (
    "sorry|but|im|i|am|we|you|one|it|that|this|there|is|the|a|clip|audio|recording|sound|speaker|question|"
    "from|with|here|in"
)
_ABSTENTION = re.compile(rf"^(?:(?:{_OPENERS}) ){{0,8}}(?:{'|'.join(ABSTENTIONS)})\b")


def words(text: str) -> list[str]:
    """Casefolded words of letters, marks and digits; apostrophes join, every other sign parts. NFKC first."""
    text = unicodedata.normalize("NFKC", text).translate(_JOINERS).casefold()
    kept = (character if unicodedata.category(character)[0] in "LMN" else " " for character in text)
    return "".join(kept).split()


def exact_form(text: str, *, number_words: bool = True) -> str:
    """Casefolded, without punctuation, English articles and extra whitespace; "twenty-one" becomes "21".

    A text of articles only keeps them: the letter "A" is an answer.
    """
    kept = words(text)
    kept = [word for word in kept if word not in ARTICLES] or kept
    return " ".join(_number_words_to_digits(kept) if number_words else kept)


def transcript_form(text: str) -> str:
    """Casefolded words without punctuation: accents stay, "ё" is read as "е", apostrophes join ("don't" -> "dont").

    Hyphens part words. Number words and digits are left as they are: "five" and "5" are different words.
    """
    return " ".join(words(text)).replace("ё", "е")


def numbers_in(text: str) -> list[float]:
    """Every number of a text in order, written in digits or in English words; "none" is 0."""
    tokens = _NUMBER_TOKEN.findall(_THOUSANDS.sub("", unicodedata.normalize("NFKC", text)).casefold())
    tokens = ["zero" if token == "none" else token for token in tokens]
    found = [token.replace("−", "-") for token in _number_words_to_digits(tokens)]
    return [float(token) for token in found if token[-1].isdecimal()]


def is_abstention(text: str) -> bool:
    """Whether an answer opens by declining to answer; looked for at its head only, so that good answers pass."""
    return bool(_ABSTENTION.match(" ".join(words(text))))


def _number_words_to_digits(tokens: Sequence[str]) -> list[str]:
    """Joins what belongs to one number ("two hundred and five" -> "205"); "one two" stays two numbers."""
    out, start = [], 0
    while start < len(tokens):
        value, end = _thousands(tokens, start)
        out.append(tokens[start] if value is None else str(value))
        start = end if value is not None else start + 1
    return out


def _thousands(tokens: Sequence[str], start: int) -> tuple[int | None, int]:
    value, end = _hundreds(tokens, start)
    if value and tokens[end : end + 1] == ["thousand"]:
        rest, rest_end = _after_and(tokens, end + 1, _hundreds)
        return value * 1000 + (rest or 0), rest_end if rest else end + 1
    return value, end


def _hundreds(tokens: Sequence[str], start: int) -> tuple[int | None, int]:
    value, end = _below_hundred(tokens, start)
    if value and value < 10 and tokens[end : end + 1] == ["hundred"]:
        rest, rest_end = _after_and(tokens, end + 1, _below_hundred)
        return value * 100 + (rest or 0), rest_end if rest else end + 1
    return value, end


def _after_and(tokens: Sequence[str], start: int, parse) -> tuple[int | None, int]:
    return parse(tokens, start + 1 if tokens[start : start + 1] == ["and"] else start)


def _below_hundred(tokens: Sequence[str], start: int) -> tuple[int | None, int]:
    word = tokens[start] if start < len(tokens) else ""
    if word in _SMALL:
        return _SMALL[word], start + 1
    if word not in _TENS_VALUE:
        return None, start
    unit = _SMALL.get(tokens[start + 1], 0) if start + 1 < len(tokens) else 0
    return (_TENS_VALUE[word] + unit, start + 2) if 0 < unit < 10 else (_TENS_VALUE[word], start + 1)
