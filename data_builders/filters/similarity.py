"""Similarity of sound and text: the low tail of each source is dropped.

An encoder of both (CLAP, for example) is given as two functions. One threshold does not fit every corpus, so a share
of each source is cut, not a constant. Such encoders are blind to counts, order and spoken words: never the only judge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from data_builders.filters.base import Verdict, rejected
from lalm.audio.io import load_audio
from lalm.data.records import Record
from lalm.errors import AudioError, DataError


class PairEncoder(Protocol):
    """Maps sounds and texts to vectors [n, E] that can be compared by cosine; `sample_rate_hz` is what it hears."""

    sample_rate_hz: int

    def encode_audio(self, waves: Sequence[np.ndarray]) -> np.ndarray: ...

    def encode_text(self, texts: Sequence[str]) -> np.ndarray: ...


def caption_of(record: Record) -> str:
    """What a record says about its clip: caption and answer, where it has them."""
    caption = record.meta.get("caption", "")
    return f"{caption} {record.answer or ''}".strip()


class Similarity:
    """Rejects the `tail` share (0 to 1) of each source whose sound and text agree least.

    Remembers one number for each record.
    """

    name = "similarity"

    def __init__(
        self,
        encoder: PairEncoder,
        folder: Path,
        *,
        tail: float = 0.05,
        text_of: Callable[[Record], str] = caption_of,
    ):
        """`folder` is what the audio paths of the records are relative to.

        Raises:
            DataError: if `tail` is not between 0 and 1.
        """
        if not 0 < tail < 1:
            raise DataError(f"similarity: tail {tail} is no share. Accepted: between 0 and 1, such as 0.05.")
        self.encoder, self.folder, self.tail, self.text_of = encoder, folder, tail, text_of
        self._scores: dict[str, float] = {}
        self._thresholds: dict[str, float] = {}

    def prepare(self, records: Iterable[Record]) -> None:
        """Scores every record and finds each source's threshold."""
        by_source: dict[str, list[float]] = defaultdict(list)
        for record in records:
            score = self._score(record)
            if score is not None:
                self._scores[record.id] = score
                by_source[record.source].append(score)
        self._thresholds = {source: float(np.quantile(scores, self.tail)) for source, scores in by_source.items()}

    def judge(self, record: Record) -> Verdict:
        """Rejects a score below the threshold of the record's source, and a clip that cannot be read."""
        if not record.audio:
            return Verdict(True, note="no audio")
        if record.id not in self._scores:
            return rejected("the clip cannot be read")
        score = self._scores[record.id]
        if score < self._thresholds[record.source]:
            return rejected("sound and text do not agree", round(score, 4))
        return Verdict(True, note=round(score, 4))

    def report(self) -> dict[str, float]:
        """The threshold of each source."""
        return dict(sorted(self._thresholds.items()))

    def _score(self, record: Record) -> float | None:
        """The best cosine of the record's clips with its text; None where no clip can be read."""
        try:
            waves = [load_audio(self.folder / path, self.encoder.sample_rate_hz) for path in record.audio]
        except AudioError:
            return None
        if not waves:
            return None
        sounds = np.asarray(self.encoder.encode_audio(waves), np.float64)
        text = np.asarray(self.encoder.encode_text([self.text_of(record)]), np.float64)[0]
        norms = np.linalg.norm(sounds, axis=1) * np.linalg.norm(text)
        return float((sounds @ text / np.maximum(norms, 1e-12)).max())
