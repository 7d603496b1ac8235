"""Refusals and leaked prompts: answers that decline, or that show the text they were written from.

A refusal is looked for at the head of an answer only: lists that match anywhere also throw out good answers with
words such as "enough" or "impossible". A refusal that is the task (`unanswerable`) is kept. The phrases are the YAML
files of `phrases/`, one a language; every language is looked for in every answer, and in the questions too for leaks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from functools import cache
from importlib import resources

import yaml

from data_builders.filters.base import KEPT, Verdict, rejected
from lalm.data.records import Record
from lalm.errors import DataError

KINDS = ("refusal", "leakage", "markers")
UNANSWERABLE_TASKS = ("unanswerable", "unanswerable_options", "unanswerable_unrelated")
SPOKEN_TASKS = ("transcription", "translation")
"""Their answers are words that somebody said, and people do say that they are sorry."""
SCRIPTS_WITHOUT_SPACES = re.compile(r"[㐀-鿿぀-ヿ]")


class Phrases:
    """Rejects refusals (unless the task asks for them), mentions of the prompt's own text, and section markers."""

    name = "phrases"

    def __init__(
        self,
        languages: Collection[str] | None = None,
        *,
        unanswerable_tasks: Collection[str] = UNANSWERABLE_TASKS,
    ):
        """`languages` are names of phrase files; None takes all.

        Raises:
            DataError: for a language that has no file.
        """
        chosen = phrase_languages() if languages is None else tuple(languages)
        self.unanswerable_tasks = frozenset(unanswerable_tasks)
        tables = [load_phrases(language) for language in chosen]
        self._refusal = _pattern((phrase for table in tables for phrase in table.get("refusal", ())), head=True)
        self._leakage = _pattern(phrase for table in tables for phrase in table.get("leakage", ()))
        self._markers = tuple(marker for table in tables for marker in table.get("markers", ()))

    def judge(self, record: Record) -> Verdict:
        """A verdict on every turn of the conversation: refusals in answers, leaks in questions and answers."""
        for turn in record.turns:
            text = plain(turn.content)
            if turn.role == "assistant" and (record.answer_type == "transcript" or record.task in SPOKEN_TASKS):
                continue
            if turn.role == "assistant" and record.task not in self.unanswerable_tasks and self._refusal:
                found = self._refusal.match(text)
                if found:
                    return rejected("refuses to answer", found.group(0))
            leaked = self._leakage.search(text) if self._leakage and turn.role != "system" else None
            if leaked:
                return rejected("shows what it was written from", leaked.group(0))
            marker = next((marker for marker in self._markers if turn.role == "assistant" and marker in text), None)
            if marker:
                return rejected("holds a marker of the prompt", marker)
        return KEPT


def plain(text: str) -> str:
    """Lower case, one kind of apostrophe, single spaces: how phrases and texts are compared."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("‘", "'")
    return " ".join(text.split())


def phrase_languages() -> tuple[str, ...]:
    """The languages that have a phrase file."""
    folder = resources.files("data_builders.filters.phrases")
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


@cache
def load_phrases(language: str) -> dict[str, tuple[str, ...]]:
    """The phrases of one language by kind, as they are compared.

    Raises:
        DataError: for a language without a file, or a file with an unknown kind.
    """
    if language not in phrase_languages():
        raise DataError(f"phrases: '{language}' has no file. Accepted: {', '.join(phrase_languages())}.")
    file = resources.files("data_builders.filters.phrases").joinpath(f"{language}.yaml")
    table = yaml.safe_load(file.read_text(encoding="utf-8"))
    unknown = set(table) - set(KINDS)
    if unknown:
        raise DataError(f"phrases/{language}.yaml: {sorted(unknown)} is unknown. Accepted: {', '.join(KINDS)}.")
    return {
        kind: tuple(phrase.casefold() if kind == "markers" else plain(phrase) for phrase in phrases)
        for kind, phrases in table.items()
    }


def _pattern(phrases: Iterable[str], head: bool = False) -> re.Pattern[str] | None:
    """Any of the phrases as whole words (Chinese and Japanese have none), at the head of a text or anywhere."""
    parts = [
        re.escape(phrase) if SCRIPTS_WITHOUT_SPACES.search(phrase) else rf"(?<!\w){re.escape(phrase)}(?!\w)"
        for phrase in sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase))
    ]
    if not parts:
        return None
    return re.compile(r"\W*(?:" + "|".join(parts) + ")" if head else "|".join(parts))
