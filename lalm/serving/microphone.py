"""A clip from the microphone, through the optional package sounddevice (PortAudio)."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from lalm.errors import AudioError, MissingPackageError

DEFAULT_SECONDS = 5.0
MAX_SECONDS = 300.0


def record(seconds: float, sample_rate_hz: int) -> np.ndarray:
    """Listens for `seconds` and returns float32 `[S]` in [-1, 1]; blocks meanwhile.

    Raises:
        MissingPackageError: if sounddevice is not installed.
        AudioError: if `seconds` is out of range, or this machine has no microphone that can be opened.
    """
    if not 0 < seconds <= MAX_SECONDS:
        raise AudioError(f"cannot record {seconds:g} s. Accepted: more than 0, at most {MAX_SECONDS:g}.")
    device = _sounddevice()
    try:
        device.query_devices(kind="input")
        samples = device.rec(round(seconds * sample_rate_hz), samplerate=sample_rate_hz, channels=1, dtype="float32")
        device.wait()
    except (ValueError, device.PortAudioError) as error:
        raise AudioError(f"no microphone can be opened here ({error}). Use /audio FILE instead.") from error
    return samples[:, 0]


def _sounddevice() -> ModuleType:
    try:
        import sounddevice
    except ImportError:
        raise MissingPackageError("sounddevice", "recording from the microphone", "serve") from None
    except OSError as error:  # The package is there, the C library below it is not.
        raise AudioError(
            f"no microphone can be opened here ({error}). Install PortAudio (Debian: libportaudio2), "
            "or use /audio FILE instead."
        ) from error
    return sounddevice
