"""Waveform operations on clips of known content: trimming, levels, and the variants that multiply a small training set.

All at 16 kHz, [S] float32 in, [S] float32 out. Variants are made of training clips only.
"""

from __future__ import annotations

import random

import numpy as np

from data_builders.clips import SAMPLE_RATE_HZ

SHORTEST_SECONDS = 0.4
FFT_STEP = 4096
"""Transforms are padded to a multiple of it: a prime length is ten times slower."""
TELEPHONE_HZ = 3_700
"""Where the telephone prompts end. Half of the other clips are cut there, lest bandwidth tell speech from sound."""


def draw_variant(rng: random.Random, *, speech: bool) -> dict[str, float]:
    """The settings of one variant: speed (pitch moves with it), gain and level of added noise.

    Speech is changed less: it must stay the same words by a believable voice.
    """
    spread = 0.10 if speech else 0.18
    return {
        "speed": round(rng.uniform(1 - spread, 1 + spread), 3),
        "gain_db": round(rng.uniform(-8, 0), 1),
        "noise_db": round(rng.uniform(-60, -38), 1),
    }


def apply_variant(wave: np.ndarray, settings: dict[str, float], noise_seed: int) -> np.ndarray:
    """The clip played faster or slower, quieter, over faint white noise `noise_db` below its peak."""
    import soxr

    wave = soxr.resample(wave, SAMPLE_RATE_HZ * settings["speed"], SAMPLE_RATE_HZ).astype(np.float32)
    noise = np.random.default_rng(noise_seed).standard_normal(len(wave)).astype(np.float32)
    peak = float(np.abs(wave).max(initial=0))
    return (wave + noise * peak * 10 ** (settings["noise_db"] / 20)) * 10 ** (settings["gain_db"] / 20)


def low_passed(wave: np.ndarray, cutoff_hz: float = TELEPHONE_HZ) -> np.ndarray:
    """What is left below `cutoff_hz`, with a slope of 300 Hz."""
    size = -(-len(wave) // FFT_STEP) * FFT_STEP
    spectrum = np.fft.rfft(wave, size)
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    kept = np.clip((cutoff_hz + 300 - frequency) / 300, 0, 1)
    return np.fft.irfft(spectrum * kept, size)[: len(wave)].astype(np.float32)


def trimmed(wave: np.ndarray, longest_seconds: float, quiet_db: float = -45) -> np.ndarray:
    """The sounding part: silence at either end goes, what is longer than `longest_seconds` fades out there."""
    peak = float(np.abs(wave).max(initial=0))
    loud = np.flatnonzero(np.abs(wave) > peak * 10 ** (quiet_db / 20))
    if peak == 0 or not len(loud):
        return wave[:0]
    wave = wave[max(0, loud[0] - SAMPLE_RATE_HZ // 100) : loud[-1] + SAMPLE_RATE_HZ // 50]
    longest = int(longest_seconds * SAMPLE_RATE_HZ)
    return faded(wave[:longest]) if len(wave) > longest else wave.copy()


def faded(wave: np.ndarray, seconds: float = 0.05) -> np.ndarray:
    """The clip with a linear fade at its end."""
    wave = wave.copy()
    length = min(len(wave), int(seconds * SAMPLE_RATE_HZ))
    if length:
        wave[-length:] *= np.linspace(1, 0, length, dtype=np.float32)
    return wave


def padded(wave: np.ndarray, shortest_seconds: float = SHORTEST_SECONDS) -> np.ndarray:
    """The clip followed by silence up to `shortest_seconds`."""
    missing = int(shortest_seconds * SAMPLE_RATE_HZ) - len(wave)
    return np.concatenate([wave, np.zeros(missing, np.float32)]) if missing > 0 else wave


def at_level(wave: np.ndarray, level_db: float) -> np.ndarray:
    """The clip scaled so that its RMS is `level_db` below full scale."""
    rms = float(np.sqrt(np.mean(np.square(wave)))) if len(wave) else 0.0
    return wave * np.float32(10 ** (level_db / 20) / rms) if rms > 0 else wave


def with_peak(wave: np.ndarray, peak: float) -> np.ndarray:
    """The clip scaled to a peak of `peak`."""
    largest = float(np.abs(wave).max(initial=0))
    return wave * np.float32(peak / largest) if largest > 0 else wave
