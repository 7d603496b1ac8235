"""Exact and near duplicates, of sound and of text; the first of each kind stays.

A record is a duplicate if its clips and its question and answer are. The same clip under another question is no
duplicate: clips are asked many things. What counts is set by `of`: "record" (the same sound asked the same),
"audio" (one record for each sound) or "text" (one record for each question and answer).
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from data_builders.filters.base import KEPT, Verdict, rejected
from data_builders.filters.fingerprint import RATE_HZ, FingerprintIndex, fingerprint
from data_builders.filters.phrases_filter import plain
from lalm.audio.io import audio_hash, is_silent, load_audio
from lalm.data.records import Record
from lalm.errors import AudioError, DataError, MissingPackageError

Of = Literal["record", "audio", "text"]
TEXT_THRESHOLD = 0.9
"""Jaccard similarity of word triples from which two texts are one."""
PERMUTATIONS = 128
SHINGLE_WORDS = 3
REMEMBERED_PATHS = 50_000


class Duplicates:
    """Rejects a record whose sound, text, or both came before.

    Remembers a hash and a fingerprint for each clip and a MinHash signature for each text (about 1 KB a distinct one).
    """

    name = "duplicates"

    def __init__(
        self,
        folder: Path,
        *,
        of: Of = "record",
        near: bool = True,
        text_threshold: float = TEXT_THRESHOLD,
        digests: Mapping[str, str] | None = None,
    ):
        """`folder` is what audio paths are relative to; without `near`, only equal samples and equal words count.

        `digests` (path -> digest of its content) saves decoding, where only equal clips count.

        Raises:
            DataError: for an unknown `of`.
        """
        if of not in ("record", "audio", "text"):
            raise DataError(f"duplicates: of '{of}' is not known. Accepted: record, audio, text.")
        self.folder, self.of, self.near = folder, of, near
        self.sounds = SoundIds(folder, near=near, digests=digests)
        self._texts: dict[tuple[str, ...], TextIds] = {}
        self._threshold = text_threshold
        self._seen_sounds: dict[tuple[str, ...], str] = {}

    def judge(self, record: Record) -> Verdict:
        """Rejects with the id of the record that came first."""
        sound: tuple[str, ...] = ()
        if self.of != "text":
            try:
                sound = tuple(self.sounds.id_of(path) for path in record.audio)
            except AudioError as error:
                return rejected("the clip cannot be read", str(error))
        if self.of == "audio":
            first = self._seen_sounds.setdefault(sound, record.id)
            return KEPT if first == record.id or not sound else rejected("the same sound", first)
        texts = self._texts.setdefault(sound, TextIds(self._threshold, near=self.near))
        first = texts.first_of(record.id, conversation_text(record))
        if first == record.id:
            return KEPT
        return rejected("the same sound and text" if self.of == "record" else "the same text", first)


class SoundIds:
    """The identity of clips: two files of one recording get one id, which is the first one's path."""

    def __init__(self, folder: Path, *, near: bool = True, digests: Mapping[str, str] | None = None):
        self.folder, self.near, self._digests = folder, near, {} if near else dict(digests or {})
        self._by_hash: dict[str, str] = {}
        self._index = FingerprintIndex(min_share=0.9)
        self._by_path: OrderedDict[str, str] = OrderedDict()

    def id_of(self, path: str) -> str:
        """The path of the first clip that is the same recording; of this one, if there was none.

        Raises:
            AudioError: if the clip cannot be read.
        """
        if path in self._by_path:
            return self._by_path[path]
        if path in self._digests:
            return self._by_hash.setdefault(self._digests[path], path)
        wave = load_audio(self.folder / path, RATE_HZ)
        digest = audio_hash(wave)
        found = self._by_hash.get(digest)
        if found is None and self.near and not is_silent(wave):
            words = fingerprint(wave)
            match = self._index.find(words)
            found = match.id if match else None
            if found is None:
                self._index.add(path, words)
        found = path if found is None else found
        self._by_hash.setdefault(digest, found)
        self._by_path[path] = found
        if len(self._by_path) > REMEMBERED_PATHS:
            self._by_path.popitem(last=False)
        return found


class TextIds:
    """The identity of texts: equal words, or (with `near`) nearly the same word triples by MinHash."""

    def __init__(self, threshold: float = TEXT_THRESHOLD, *, near: bool = True):
        """
        Raises:
            MissingPackageError: without datasketch, if `near`.
        """
        self.near, self.threshold = near, threshold
        self._exact: dict[bytes, str] = {}
        self._lsh: Any = None
        self._signatures: dict[str, Any] = {}
        if near:
            try:
                import datasketch
            except ImportError:
                raise MissingPackageError("datasketch", "finding near duplicates of text", "data") from None
            self._datasketch = datasketch

    def first_of(self, id_: str, text: str) -> str:
        """The id under which this text, or nearly this, came first; `id_` if it is new."""
        words = re.findall(r"\w+", plain(text))
        digest = hashlib.sha256(" ".join(words).encode()).digest()[:16]
        if digest in self._exact:
            return self._exact[digest]
        first = self._near(id_, words) if self.near else id_
        self._exact[digest] = first
        return first

    def _near(self, id_: str, words: list[str]) -> str:
        """The nearest earlier text by MinHash; numbers and names that differ in short texts keep them apart."""
        signature = self._datasketch.MinHash(num_perm=PERMUTATIONS, seed=1)
        shingles = {" ".join(words[start : start + SHINGLE_WORDS]) for start in range(len(words) - SHINGLE_WORDS + 1)}
        signature.update_batch([shingle.encode() for shingle in sorted(shingles or {" ".join(words)})])
        if self._lsh is None:
            self._lsh = self._datasketch.MinHashLSH(num_perm=PERMUTATIONS, params=_bands(self.threshold))
        close = [
            (-signature.jaccard(self._signatures[key]), key)
            for key in self._lsh.query(signature)
            if signature.jaccard(self._signatures[key]) >= self.threshold
        ]
        if close:
            return min(close)[1]
        if id_ not in self._signatures:
            self._lsh.insert(id_, signature)
            self._signatures[id_] = signature
        return id_


@cache
def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows of the index for a threshold: found by integrals, which takes longer than all texts of a clip."""
    import datasketch

    index = datasketch.MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    return index.b, index.r


def conversation_text(record: Record) -> str:
    """Every question and answer of a record, as one text."""
    return " ".join(turn.content.replace("<audio>", " ") for turn in record.turns if turn.role != "system")
