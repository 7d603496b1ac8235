"""Contamination: records that touch a registered evaluation set, by id, sound or words.

A registry is a JSONL file that can be shared without the evaluation set: a line for each entry, words only as hashes.

    {"set": "mmau-mini", "kind": "id", "value": "youtube:AbCdEfGhIjK"}
    {"set": "mmau-mini", "kind": "audio_hash", "value": "<sha256 of 16-bit samples at 16 kHz>", "of": "x1"}
    {"set": "mmau-mini", "kind": "audio_print", "value": "<hex of the fingerprint's 32-bit words>", "of": "x1"}
    {"set": "mmau-mini", "kind": "ngram", "value": "<hash of NGRAM_WORDS words>", "of": "x1"}
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_builders.filters.base import KEPT, Verdict, atomic_text, rejected
from data_builders.filters.duplicates import conversation_text
from data_builders.filters.fingerprint import MIN_FRAMES, RATE_HZ, FingerprintIndex, fingerprint
from data_builders.filters.phrases_filter import plain
from lalm.audio.io import audio_hash, is_silent, load_audio
from lalm.data.records import Record
from lalm.errors import AudioError, DataError

KINDS = ("id", "audio_hash", "audio_print", "ngram")
NGRAM_WORDS = 10
"""Overlap of so many words in a row is no chance; 8 to 13 are in use in the field."""
YOUTUBE_KEYS = ("ytid", "youtube_id", "yt_id", "YTID")
FREESOUND_KEYS = ("freesound_id", "sound_id", "freesound")
OTHER_KEYS = ("utterance_id", "uniq_id", "source_id", "audio_id")
YOUTUBE_FILE = re.compile(r"^Y?([A-Za-z0-9_-]{11})(?:_\d+(?:\.\d+)?(?:_\d+(?:\.\d+)?)?)?$")
YOUTUBE_URL = re.compile(r"(?:youtube\.com/watch\?v=|youtu\.be/)([A-Za-z0-9_-]{11})")
FREESOUND_URL = re.compile(r"freesound\.org/(?:s|people/[^/]+/sounds)/(\d+)")
LIBRISPEECH_FILE = re.compile(r"^\d{1,5}-\d{1,6}-\d{4}$")
COMMON_NAME = re.compile(r"^\d{1,5}$|^(?:clip|audio|test|sample)[_-]?\d*$")


class Contamination:
    """Rejects records that touch one of the registered sets. The whole registry is held in memory.

    Every check runs, but a clip is decoded only if the registry holds sounds.
    """

    name = "contamination"

    def __init__(self, registries: Sequence[Path], folder: Path):
        """`folder` is what the audio paths of the records are relative to.

        Raises:
            DataError: with file and line, for an entry that breaks the format, or no entry at all.
        """
        self.folder = folder
        self._values: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
        self._index = FingerprintIndex()
        count = 0
        for path in registries:
            for entry in read_registry(path):
                count += 1
                where = f"{entry['set']}: {entry.get('of', entry['value'])}"
                if entry["kind"] == "audio_print":
                    self._index.add(where, _unhex(entry["value"]))
                self._values[entry["kind"]].setdefault(entry["value"], where)
        if not count:
            raise DataError(f"{[str(path) for path in registries]}: no entry is registered. Run `lalm data register`.")
        self._sounds: dict[str, Verdict | None] = {}

    def judge(self, record: Record) -> Verdict:
        """Rejects with the kind of the hit, naming the set and its entry."""
        for value in source_ids(record):
            if value in self._values["id"]:
                return rejected("its source is in an evaluation set", f"{self._values['id'][value]} ({value})")
        for path in record.audio:
            verdict = self._sound(path)
            if verdict is not None:
                return verdict
        for value in ngrams(conversation_text(record)):
            if value in self._values["ngram"]:
                return rejected("its words are in an evaluation set", self._values["ngram"][value])
        return KEPT

    def _sound(self, path: str) -> Verdict | None:
        if not self._values["audio_hash"] and not self._values["audio_print"]:
            return None
        if path not in self._sounds:
            self._sounds[path] = self._heard(path)
        return self._sounds[path]

    def _heard(self, path: str) -> Verdict | None:
        try:
            wave = load_audio(self.folder / path, RATE_HZ)
        except AudioError as error:
            return rejected("the clip cannot be read", str(error))
        if is_silent(wave):
            return None
        found = self._values["audio_hash"].get(audio_hash(wave))
        if found:
            return rejected("its sound is in an evaluation set", f"{found} (same samples)")
        match = self._index.find(fingerprint(wave))
        if match is None:
            return None
        share = f"{match.error_rate:.0%} of bits differ"
        return rejected("its sound is in an evaluation set", f"{match.id} ({share})")


def register(records: Iterable[Record], folder: Path, name: str, out: Path) -> dict[str, int]:
    """Writes the registry of an evaluation set; returns how many entries of each kind.

    Raises:
        AudioError: for a clip that cannot be read, since it could not be protected.
    """
    counts = dict.fromkeys(KINDS, 0)
    written: set[tuple[str, str]] = set()
    with atomic_text(out) as lines:
        for record in records:
            for kind, value in _entries(record, folder, written):
                counts[kind] += 1
                row = {"set": name, "kind": kind, "value": value, "of": record.id}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    return counts


def _entries(record: Record, folder: Path, written: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The entries of a record that were not written before. A clip is decoded once."""
    found: list[tuple[str, str]] = [("id", value) for value in source_ids(record)]
    for path in record.audio:
        if ("path", path) not in written:
            written.add(("path", path))
            wave = load_audio(folder / path, RATE_HZ)
            if not is_silent(wave):
                words = fingerprint(wave)
                found.append(("audio_hash", audio_hash(wave)))
                found += [("audio_print", words.astype("<u4").tobytes().hex())] if len(words) >= MIN_FRAMES else []
    found += [("ngram", value) for value in ngrams(conversation_text(record))]
    for entry in found:
        if entry not in written:
            written.add(entry)
            yield entry


def read_registry(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a registry.

    Raises:
        DataError: with file and line, for a line that is no entry.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such registry. Make one with `lalm data register`.")
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                good = isinstance(entry["set"], str) and isinstance(entry["value"], str) and entry["kind"] in KINDS
                if good and entry["kind"] == "audio_print":
                    _unhex(entry["value"])
            except (ValueError, KeyError, TypeError):
                good = False
            if not good:
                raise DataError(
                    f"{path}:{number}: {line.strip()[:80]!r} is no entry. Needed: set, value, kind "
                    f"({', '.join(KINDS)})."
                )
            yield entry


def source_ids(record: Record) -> list[str]:
    """The names under which the world knows a record's clips: youtube:..., freesound:..., librispeech:..., file:...

    AudioSet ids lose a leading Y and their start time. File names that anyone may have used (12, test_3) do not count.
    """
    found: set[str] = set()
    for place in _places(record):
        for key, value in place.items():
            if isinstance(value, (str, int)) and not isinstance(value, bool):
                found |= _known(key, str(value).strip())
    for path in record.audio:
        stem = PurePosixPath(path.replace("\\", "/")).stem
        youtube = YOUTUBE_FILE.match(stem)
        if youtube and any(letter.isdigit() or letter.isupper() for letter in youtube.group(1)):
            found.add(f"youtube:{youtube.group(1)}")
        if LIBRISPEECH_FILE.match(stem):
            found.add(f"librispeech:{stem}")
        if not COMMON_NAME.match(stem.casefold()):
            found.add(f"file:{stem.casefold()}")
    return sorted(found)


def ngrams(text: str) -> list[str]:
    """Hashes of every run of NGRAM_WORDS words, without punctuation and case."""
    words = re.findall(r"\w+", plain(text))
    runs = {" ".join(words[start : start + NGRAM_WORDS]) for start in range(len(words) - NGRAM_WORDS + 1)}
    return sorted(hashlib.sha256(run.encode()).hexdigest()[:16] for run in runs)


def _places(record: Record) -> Iterator[dict[str, Any]]:
    yield record.meta
    yield record.provenance
    for clip in record.provenance.get("clips", ()):
        if isinstance(clip, dict):
            yield clip


def _known(key: str, value: str) -> set[str]:
    found = {f"youtube:{name}" for name in YOUTUBE_URL.findall(value)}
    found |= {f"freesound:{number}" for number in FREESOUND_URL.findall(value)}
    if key in YOUTUBE_KEYS and (youtube := YOUTUBE_FILE.match(value)):
        found.add(f"youtube:{youtube.group(1)}")
    if key in FREESOUND_KEYS and value.isdigit():
        found.add(f"freesound:{value}")
    if key in OTHER_KEYS and value:
        found.add(f"{'librispeech' if LIBRISPEECH_FILE.match(value) else 'id'}:{value}")
    return found


def _unhex(value: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(value), "<u4").astype(np.uint32)
