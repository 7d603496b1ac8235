"""Clips by path: where a record's audio is, how long it is once decoded, and which files are unusable.

A clip is decoded once to learn its exact length and content hash; both are kept in an index file (one JSON line a
clip, keyed by path, size and time of change), so that later runs start at once. A clip that cannot be used is
quarantined: listed with its reason, left out, never replaced by something else. Imports no torch.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lalm.audio.io import audio_hash, is_silent, load_audio
from lalm.errors import AudioError, DataError

_INDEX_FLUSH = 256
_INDEX_KEYS = {"path", "size", "mtime_ns", "rate", "samples", "hash", "silent"}
_NAMED_IN_ERROR = 5


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What is known of a decoded clip: its length in samples at the store's rate, and the hash of its content."""

    num_samples: int
    audio_hash: str


def resolve_clip(name: str, folder: Path) -> Path:
    """The absolute path of a clip that a record in `folder` names.

    Raises:
        DataError: if a relative `name` leaves `folder` (absolute paths are the user's own and are kept).
    """
    if os.path.isabs(name):
        return Path(os.path.normpath(name))
    root = os.path.abspath(folder)
    path = os.path.normpath(os.path.join(root, name))
    if os.path.commonpath([root, path]) != root:
        raise DataError(
            f"audio '{name}': leads outside of the data folder {root}. "
            "Use a path below that folder, or an absolute path."
        )
    return Path(path)


class ClipStore:
    """Loads clips as mono waveforms at one rate, and remembers lengths, hashes and what is broken.

    Args:
        sample_rate_hz: rate of every waveform that is handed out.
        min_seconds, max_seconds: shorter and longer clips are quarantined.
        max_bad_share: `check_bad_share` refuses more unusable clips than this.
        index_file: where lengths and hashes are kept between runs; None keeps them in memory.
        quarantine_file: where unusable clips are listed, one JSON object a line.
        allow_silent: keep clips without any sound.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        *,
        min_seconds: float = 0.02,
        max_seconds: float = 30.0,
        max_bad_share: float = 0.01,
        index_file: str | os.PathLike[str] | None = None,
        quarantine_file: str | os.PathLike[str] | None = None,
        allow_silent: bool = False,
    ):
        self.sample_rate_hz = sample_rate_hz
        self.min_seconds, self.max_seconds = min_seconds, max_seconds
        self.max_bad_share, self.allow_silent = max_bad_share, allow_silent
        self.index_file = Path(index_file) if index_file else None
        self.quarantine_file = Path(quarantine_file) if quarantine_file else None
        self.quarantine: dict[str, str] = {}
        """Path -> why the clip cannot be used."""
        self._known: dict[str, dict] = {}
        self._infos: dict[str, ClipInfo] = {}
        self._read_index()

    def load(self, path: str | os.PathLike[str]) -> np.ndarray:
        """The waveform [S], float32 in [-1, 1], mono, at `sample_rate_hz`.

        Raises:
            AudioError: if the file cannot be decoded, or its length is out of bounds, or it is silent.
        """
        wave = load_audio(path, self.sample_rate_hz)
        self._check(str(path), len(wave), silent=is_silent(wave))
        return wave

    def info(self, path: str | os.PathLike[str]) -> ClipInfo | None:
        """Length and hash of a clip; None if it is quarantined. Decodes the clip if it is not in the index."""
        if str(path) not in self._infos:
            self.scan([path])
        return None if str(path) in self.quarantine else self._infos.get(str(path))

    def scan(
        self, paths: Iterable[str | os.PathLike[str]], *, on_clip: Callable[[], None] | None = None, threads: int = 2
    ) -> None:
        """Learns length and hash of every clip of `paths`, decoding those that the index lacks."""
        fresh = [p for p in dict.fromkeys(map(str, paths)) if p not in self._infos and p not in self.quarantine]
        lines: list[dict] = []
        with ThreadPoolExecutor(threads) as pool:
            for path, entry, problem in pool.map(self._examine, fresh):
                if problem:
                    self.quarantine[path] = problem
                elif entry:
                    self._infos[path] = ClipInfo(entry["samples"], entry["hash"])
                if entry and self._known.get(path) is not entry:
                    self._known[path] = entry
                    lines.append(entry)
                if len(lines) >= _INDEX_FLUSH:
                    self._append_index(lines)
                    lines = []
                if on_clip:
                    on_clip()
        self._append_index(lines)

    def quarantine_clip(self, path: str | os.PathLike[str], reason: str) -> None:
        """Leaves a clip out from now on."""
        self.quarantine[str(path)] = reason
        self._infos.pop(str(path), None)

    def check_bad_share(self, paths: Iterable[str | os.PathLike[str]]) -> int:
        """The number of quarantined clips among `paths`; also writes the quarantine file.

        Raises:
            DataError: if they are more than `max_bad_share` of all; names the first few.
        """
        self.write_quarantine()
        distinct = set(map(str, paths))
        bad = sorted(distinct & self.quarantine.keys())
        if len(bad) > self.max_bad_share * len(distinct):
            shown = "\n  ".join(self.quarantine[path] for path in bad[:_NAMED_IN_ERROR])
            more = f"\n  and {len(bad) - _NAMED_IN_ERROR} more" if len(bad) > _NAMED_IN_ERROR else ""
            raise DataError(
                f"{len(bad)} of {len(distinct)} clips cannot be used, more than data.max_bad_share = "
                f"{self.max_bad_share:g} allows:\n  {shown}{more}\n"
                "Repair or remove them, or raise data.max_bad_share to train without them."
            )
        return len(bad)

    def write_quarantine(self) -> None:
        """Writes the list of unusable clips atomically; removes a stale list when there are none."""
        if self.quarantine_file is None:
            return
        if not self.quarantine:
            self.quarantine_file.unlink(missing_ok=True)
            return
        lines = [
            json.dumps({"audio": path, "reason": why}, ensure_ascii=False)
            for path, why in sorted(self.quarantine.items())
        ]
        self.quarantine_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.quarantine_file.parent, prefix=".quarantine.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")
        os.replace(temporary, self.quarantine_file)

    def _examine(self, path: str) -> tuple[str, dict | None, str | None]:
        """Index entry of a clip (None if it cannot be decoded) and what is wrong with it (None if nothing)."""
        entry = None
        try:
            status = os.stat(path)
            key = (status.st_size, status.st_mtime_ns, self.sample_rate_hz)
            entry = self._known.get(path)
            if entry is None or (entry["size"], entry["mtime_ns"], entry["rate"]) != key:
                entry = None
                wave = load_audio(path, self.sample_rate_hz)
                entry = {
                    "path": path,
                    "size": key[0],
                    "mtime_ns": key[1],
                    "rate": key[2],
                    "samples": len(wave),
                    "hash": audio_hash(wave),
                    "silent": bool(is_silent(wave)),
                }
            self._check(path, entry["samples"], silent=entry["silent"])
        except AudioError as error:
            return path, entry, str(error)
        except OSError as error:
            return path, None, f"{path}: cannot be read ({error.strerror}). Check the path in the record."
        return path, entry, None

    def _check(self, path: str, num_samples: int, *, silent: bool) -> None:
        seconds = num_samples / self.sample_rate_hz
        if seconds < self.min_seconds:
            raise AudioError(f"{path}: {seconds:.3f} s is shorter than data.min_audio_seconds = {self.min_seconds:g}.")
        if seconds > self.max_seconds:
            raise AudioError(
                f"{path}: {seconds:.1f} s is longer than data.max_audio_seconds = {self.max_seconds:g}. "
                "Cut the clip or raise the limit."
            )
        if silent and not self.allow_silent:
            raise AudioError(f"{path}: is silent. Record it again, or remove its records.")

    def _read_index(self) -> None:
        if self.index_file is None or not self.index_file.exists():
            return
        with self.index_file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    if entry.keys() >= _INDEX_KEYS and entry["rate"] == self.sample_rate_hz:
                        self._known[entry["path"]] = entry
                except (json.JSONDecodeError, AttributeError):
                    continue  # A line that a killed run left half-written: the clip is decoded again.

    def _append_index(self, entries: list[dict]) -> None:
        if self.index_file is None or not entries:
            return
        self.index_file.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        with self.index_file.open("ab") as out:
            # A leading newline closes a line that a killed run left open; readers skip empty lines.
            out.write(("\n" + text).encode())
