"""Audio files in and out: any format, any rate, any number of channels -> mono float32 at one rate. Imports no torch.

soundfile reads what it knows (WAV, FLAC, OGG, MP3 ...), PyAV the rest (M4A, WebM, video). Stereo is mixed down, never
cut to one channel. A file that ends early is refused: half an answer is heard as a wrong one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from lalm.errors import AudioError

SILENCE_PEAK = 1e-4
"""A clip whose loudest sample is below this (-80 dBFS) is silent."""
TRUNCATION_SECONDS = 0.1
"""A compressed file may decode this much shorter than its header says; more is truncation."""

UNKNOWN_WAV_BYTES = 0x7FFF0000
"""Programs that stream a WAV write this size or more, since they do not know it yet."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says."""

    seconds: float
    sample_rate_hz: int
    channels: int
    format: str


def load_audio(path: str | os.PathLike[str], sample_rate_hz: int) -> np.ndarray:
    """A file as mono samples `[S]`, float32 in [-1, 1], at `sample_rate_hz`.

    Raises:
        AudioError: if the file is missing, empty, no audio, truncated, or holds samples that are no numbers.
    """
    path = _existing(path)
    try:
        samples, rate = _read_soundfile(path)
    except soundfile.LibsndfileError as error:
        samples, rate = _read_av(path, str(error))
    if samples.size == 0:
        raise AudioError(f"{path}: holds no samples. Record it again, or remove it from the data.")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds samples that are not finite numbers. Export it again, as 16-bit for example.")
    mono = samples.mean(axis=1, dtype=np.float32) if samples.ndim == 2 else samples
    return np.clip(resample(mono, rate, sample_rate_hz), -1.0, 1.0)


def resample(wave: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """`[S]` at one rate -> `[ceil(S * to / from)]` at another."""
    if from_hz == to_hz:
        return np.ascontiguousarray(wave, dtype=np.float32)
    wanted = -(-len(wave) * to_hz // from_hz)
    out = soxr.resample(wave, from_hz, to_hz).astype(np.float32, copy=False)
    return out[:wanted] if len(out) >= wanted else np.pad(out, (0, wanted - len(out)))


def probe_audio(path: str | os.PathLike[str]) -> AudioInfo:
    """Length, rate and channels from the header alone.

    Raises:
        AudioError: if the file is missing, empty or no audio.
    """
    path = _existing(path)
    try:
        info = soundfile.info(str(path))
        return AudioInfo(info.frames / info.samplerate, info.samplerate, info.channels, info.format)
    except soundfile.LibsndfileError as error:
        samples, rate = _read_av(path, str(error))
        return AudioInfo(len(samples) / rate, rate, samples.shape[1], path.suffix.lstrip(".").upper())


def save_audio(path: str | os.PathLike[str], wave: np.ndarray, sample_rate_hz: int) -> None:
    """Writes `[S]` or `[S, channels]` as 16-bit audio, atomically; the ending chooses WAV, FLAC or OGG.

    Raises:
        AudioError: if the ending is none that can be written.
    """
    path = Path(path)
    form = path.suffix.lstrip(".").upper()
    if form not in soundfile.available_formats():
        raise AudioError(f"{path}: cannot write '{path.suffix}' files. Accepted: .wav, .flac, .ogg.")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(descriptor)
    try:
        subtype = "PCM_16" if form in ("WAV", "FLAC") else None
        soundfile.write(temporary, np.clip(wave, -1.0, 1.0), sample_rate_hz, subtype=subtype, format=form)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def audio_hash(wave: np.ndarray) -> str:
    """sha256 of the samples as 16-bit PCM: the same clip has the same hash whatever file it came from."""
    pcm = np.round(np.clip(wave, -1.0, 1.0) * 32767).astype("<i2")
    return hashlib.sha256(pcm.tobytes()).hexdigest()


def is_silent(wave: np.ndarray) -> bool:
    """Whether nothing in the clip rises above -80 dBFS."""
    return not len(wave) or float(np.abs(wave).max()) < SILENCE_PEAK


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror}). Check the path.") from None
    if path.is_dir():
        raise AudioError(f"{path}: is a folder, not an audio file.")
    if size == 0:
        raise AudioError(f"{path}: is empty (0 bytes). Record it again, or remove it from the data.")
    return path


def _read_soundfile(path: Path) -> tuple[np.ndarray, int]:
    """`[S, channels]` float32 and the rate."""
    with soundfile.SoundFile(str(path)) as file:
        promised, rate = file.frames, file.samplerate
        samples = file.read(dtype="float32", always_2d=True)
    missing = (promised - len(samples)) / rate
    if missing > TRUNCATION_SECONDS:
        raise AudioError(f"{path}: ends early, {missing:.1f} s of {promised / rate:.1f} s are missing. Copy it again.")
    _refuse_cut_wav(path)
    return samples, rate


def _refuse_cut_wav(path: Path) -> None:
    """libsndfile silently shortens a WAV whose data chunk promises more bytes than the file has."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return
        size = path.stat().st_size
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                missing = file.tell() + length - size
                if length < UNKNOWN_WAV_BYTES and missing > 1:
                    raise AudioError(
                        f"{path}: ends early, {missing} of {length} bytes of samples are missing. Copy it again."
                    )
                return
            file.seek(length + (length & 1), os.SEEK_CUR)


def _read_av(path: Path, first_reason: str) -> tuple[np.ndarray, int]:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: holds no audio stream.")
            stream = container.streams.audio[0]
            if not stream.rate:
                raise AudioError(f"{path}: is not readable audio ({first_reason.rstrip('.')}).")
            promised = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
            resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
            blocks = []
            for frame in container.decode(stream):
                blocks += [part.to_ndarray() for part in resampler.resample(frame)]
            rate = stream.rate
    except av.FFmpegError as error:
        raise AudioError(f"{path}: is not readable audio ({first_reason.rstrip('.')}; {error}).") from None
    samples = np.concatenate(blocks, axis=1).T if blocks else np.zeros((0, 1), np.float32)
    if promised is not None and promised - len(samples) / rate > TRUNCATION_SECONDS:
        missing = promised - len(samples) / rate
        raise AudioError(f"{path}: ends early, {missing:.1f} s of {promised:.1f} s are missing. Copy it again.")
    return samples.astype(np.float32, copy=False), rate
