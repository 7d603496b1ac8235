"""What is measured of one sound: where its spectrum lies, and how long it sounds."""

from __future__ import annotations

import numpy as np

from data_builders.clips import SAMPLE_RATE_HZ
from data_builders.variants import FFT_STEP

FRAME_SAMPLES = SAMPLE_RATE_HZ // 100
SOUNDING_SHARE = 0.1
"""Of the loudest frame's level: what lies below is not heard as the sound."""


def measured(wave: np.ndarray) -> dict[str, float]:
    """`brightness_hz`, the spectral centroid to 10 Hz; `sounding_seconds`, from the first sounding frame to the last.

    Args:
        wave: [S] float32 at SAMPLE_RATE_HZ. Silence has no features.
    """
    num_frames = len(wave) // FRAME_SAMPLES
    frames = wave[: num_frames * FRAME_SAMPLES].reshape(num_frames, FRAME_SAMPLES)
    levels = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1))
    if not num_frames or levels.max() == 0:
        return {}
    sounding = np.flatnonzero(levels >= SOUNDING_SHARE * levels.max())
    size = -(-len(wave) // FFT_STEP) * FFT_STEP
    spectrum = np.abs(np.fft.rfft(wave, size))
    centroid = float((spectrum * np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)).sum() / spectrum.sum())
    seconds = float(sounding[-1] + 1 - sounding[0]) * FRAME_SAMPLES / SAMPLE_RATE_HZ
    return {"brightness_hz": round(centroid, -1), "sounding_seconds": round(seconds, 2)}
