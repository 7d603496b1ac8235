"""Speech rows against a recogniser: a transcript that another ear does not hear is rejected by word error rate."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Protocol

import numpy as np

from data_builders.filters.base import Verdict, rejected
from lalm.audio.io import load_audio
from lalm.data.records import Record
from lalm.errors import AudioError, MissingPackageError

TRANSCRIPT_TASKS = ("transcription",)
RECOGNISER_RATE_HZ = 16_000


class Recogniser(Protocol):
    """Writes down what is said in a wave [S] at 16 kHz; `language` is a hint and may be None."""

    def __call__(self, wave: np.ndarray, language: str | None) -> str: ...


class SpeechErrors:
    """Rejects a transcript whose word error rate against the recogniser's is above `most`.

    A recogniser errs too, and more on short clips: set `most` by its own rate on trusted clips of the language.
    """

    name = "speech"

    def __init__(self, recogniser: Recogniser, folder: Path, *, most: float = 0.5):
        """`folder` is what the audio paths are relative to; `most` is a word error rate, 0.5 for half of the words.

        Raises:
            MissingPackageError: without jiwer.
        """
        try:
            import jiwer
        except ImportError:
            raise MissingPackageError("jiwer", "the word error rate of transcripts", "data") from None
        self._wer = jiwer.wer
        self.recogniser, self.folder, self.most = recogniser, folder, most

    def judge(self, record: Record) -> Verdict:
        """The word error rate of a transcript; other records pass."""
        if record.answer_type != "transcript" and record.task not in TRANSCRIPT_TASKS:
            return Verdict(True, note="no transcript")
        if len(record.audio) != 1 or not record.answer or not spoken(record.answer):
            return rejected("is a transcript of no words or not of one clip")
        try:
            wave = load_audio(self.folder / record.audio[0], RECOGNISER_RATE_HZ)
        except AudioError as error:
            return rejected("the clip cannot be read", str(error))
        heard = self.recogniser(wave, record.meta.get("language"))
        rate = float(self._wer(spoken(record.answer), spoken(heard)))
        if rate > self.most:
            return rejected("the recogniser hears other words", {"word_error_rate": round(rate, 3), "heard": heard})
        return Verdict(True, note=round(rate, 3))


def spoken(text: str) -> str:
    """Words alone: lower case, no punctuation, no accents (transcripts often lack them)."""
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.replace("’", "'")))
