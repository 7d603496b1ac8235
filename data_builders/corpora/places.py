"""Finds the audio of a row inside the folder of its corpus, and reads it: files, members of tars, rows of datasets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import soundfile

from data_builders.clips import SAMPLE_RATE_HZ
from data_builders.corpora.base import Audio, BadRow
from lalm.audio.io import load_audio, probe_audio, resample
from lalm.errors import AudioError

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".webm", ".aac", ".mp4")
"""What an audio file may end in, in the order in which it is looked for."""


def inside(folder: Path, name: str, column: str) -> Path:
    """The file `name` of `folder`.

    Raises:
        BadRow: where it leads out of the folder, or is not there.
    """
    path = folder / name
    normal = os.path.normpath(path)
    if not Path(normal).is_relative_to(os.path.normpath(folder)):
        raise BadRow(column, f"'{name}' leads out of {folder}")
    if not path.is_file():
        raise BadRow(column, f"there is no audio file '{name}' in {folder}", harmless=True)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadRow(column, f"'{name}' leads out of {folder} by a link")
    return path


def one_of(folder: Path, stems: Iterable[str], column: str, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """The first file of `folder` that has one of these names, with any ending of audio.

    Raises:
        BadRow: where none is there, or a name leads out of the folder.
    """
    stems = tuple(stems)
    for stem in stems:
        for suffix in suffixes:
            try:
                return inside(folder, stem + suffix, column)
            except BadRow as bad:
                if not bad.harmless:
                    raise
    raise BadRow(column, f"there is no audio file '{stems[0]}{suffixes[0]}' (or alike) in {folder}", harmless=True)


def youtube_audio(folder: Path, video: str, start: float | None, column: str) -> Path:
    """A part of a video as the usual downloaders name it: ID, YID, ID_30, ID_30.000, ID_000030, ID_30000 (ms)."""
    stems = [video, f"Y{video}"]
    if start is not None:
        whole = int(start)
        times = (f"{whole}", f"{start:.3f}", f"{whole:06d}", f"{round(start * 1000)}")
        stems += [f"{prefix}{video}_{time}" for time in times for prefix in ("", "Y")]
    return one_of(folder, stems, column)


def audio_files(folder: Path) -> Iterator[Path]:
    """Every audio file under a folder, sorted within each folder, none held in memory beyond its own."""
    with os.scandir(folder) as entries:
        here = sorted(entries, key=lambda entry: entry.name)
    for entry in here:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from audio_files(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield Path(entry.path)


def safe_member(name: str) -> str:
    """The name of an archive's member.

    Raises:
        BadRow: where it is absolute or leads out of the folder it would be unpacked to.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise BadRow("member", f"'{name}' leads out of the archive")
    return str(path)


def read_audio(audio: Audio) -> np.ndarray:
    """[S] float32 at SAMPLE_RATE_HZ.

    Raises:
        AudioError: for what cannot be decoded, or a part that begins after the end.
    """
    if audio.member is not None:
        return _cut(_of_bytes(audio, load_audio, SAMPLE_RATE_HZ), audio)
    if not audio.is_part:
        return load_audio(audio.path, SAMPLE_RATE_HZ)
    try:
        with soundfile.SoundFile(str(audio.path)) as file:
            begin = round(audio.start * file.samplerate)
            if begin >= file.frames:
                raise AudioError(f"{audio.path}: ends before {audio.start:g} s. Copy it again.")
            file.seek(begin)
            frames = -1 if audio.seconds is None else round(audio.seconds * file.samplerate)
            samples = file.read(frames, dtype="float32", always_2d=True)
            return resample(samples.mean(axis=1, dtype=np.float32), file.samplerate, SAMPLE_RATE_HZ)
    except soundfile.LibsndfileError:
        return _cut(load_audio(audio.path, SAMPLE_RATE_HZ), audio)


def probe_seconds(audio: Audio) -> float:
    """The length of a recording, from its header, or of a part of it.

    Raises:
        AudioError: if it is missing, empty or no audio.
    """
    if audio.member is not None:
        whole = _of_bytes(audio, probe_audio).seconds
    else:
        whole = probe_audio(audio.path).seconds
    left = whole - audio.start if audio.is_part else whole
    return min(left, audio.seconds) if audio.is_part and audio.seconds is not None else left


def _cut(wave: np.ndarray, audio: Audio) -> np.ndarray:
    if not audio.is_part:
        return wave
    begin = round(audio.start * SAMPLE_RATE_HZ)
    if begin >= len(wave):
        raise AudioError(f"{audio.path}: ends before {audio.start:g} s. Copy it again.")
    end = len(wave) if audio.seconds is None else begin + round(audio.seconds * SAMPLE_RATE_HZ)
    return wave[begin:end]


def _of_bytes(audio: Audio, function: Any, *arguments: Any) -> Any:
    """A function of a file, of bytes inside another file: soundfile and PyAV tell formats by name and content."""
    suffix = Path(audio.member or "").suffix or ".wav"
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(_member_bytes(audio))
        file.flush()
        try:
            return function(file.name, *arguments)
        except AudioError as error:
            raise AudioError(str(error).replace(file.name, f"{audio.path}: {audio.member}")) from None


def _member_bytes(audio: Audio) -> bytes:
    if audio.at is not None:
        offset, length = audio.at
        with audio.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    column, _, row = (audio.member or "").rpartition(":")
    value = _saved_dataset(audio.path, column)[int(row)][column]
    if value["bytes"] is not None:
        return bytes(value["bytes"])
    return Path(value["path"]).read_bytes()


@lru_cache(maxsize=4)
def _saved_dataset(folder: Path, column: str) -> Any:
    import datasets

    return datasets.load_from_disk(str(folder)).cast_column(column, datasets.Audio(decode=False))
