"""What is done to a whole scene after its events are mixed: background, reverberation, filters, sides.

All on [S] float32 at SAMPLE_RATE_HZ. Each effect is stated in the truth of the scene, so that a question family can say
when it makes a question ill-posed: a filter changes levels, a background is one more sound.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_builders.clips import SAMPLE_RATE_HZ
from data_builders.variants import FFT_STEP, low_passed

COLOURS = {"white": 0.0, "pink": 0.5, "brown": 1.0}
"""Noise by how its amplitude falls with frequency: f ** -exponent."""
LOWEST_NOISE_HZ = 30.0
REVERB_SECONDS = (0.2, 0.9)
LOW_PASS_HZ, HIGH_PASS_HZ = (1_500.0, 3_500.0), (300.0, 900.0)
WET_DB = -6.0
"""Level of the reverberation beside the dry sound."""
SIDES = ("left", "right")
SPEED_OF_SOUND, EAR_DISTANCE_METRES = 343.0, 0.18
SIDE_LEVEL_DB = 9.0
"""How much quieter a sound of one side is on the other."""


@dataclass(frozen=True)
class EffectShares:
    """In which share of the scenes each effect is heard, and how strong it is. All zero: none is drawn."""

    overlap: float = 0.0
    background: float = 0.0
    snr_db: tuple[float, float] = (5.0, 25.0)
    reverb: float = 0.0
    filter: float = 0.0
    stereo: float = 0.0


@dataclass(frozen=True)
class Effects:
    """The effects of one scene. `overlaps`: how much of each event the next one covers, 0 to 1. `sides`: one each."""

    overlaps: tuple[float, ...] = ()
    background: str | None = None
    snr_db: float = 0.0
    reverb_seconds: float = 0.0
    filter: str | None = None
    cutoff_hz: float = 0.0
    sides: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What the truth of a scene says of it; empty without effects. Overlaps and sides are told by the events."""
        found: dict[str, Any] = {}
        if self.background:
            found |= {"background": f"{self.background} noise", "snr_db": self.snr_db}
        if self.reverb_seconds:
            found["reverb_seconds"] = self.reverb_seconds
        if self.filter:
            found |= {"filter": self.filter, "cutoff_hz": self.cutoff_hz}
        return found


NO_EFFECTS = EffectShares()
PLAIN = Effects()


def draw_effects(shares: EffectShares, num_events: int, rng: random.Random) -> Effects:
    """The effects of a scene of so many events."""
    overlaps: tuple[float, ...] = ()
    if rng.random() < shares.overlap:
        overlaps = tuple(round(rng.uniform(0.3, 0.6), 2) if rng.random() < 0.7 else 0.0 for _ in range(num_events - 1))
    if rng.random() < shares.stereo:
        # Sides are heard in stereo alone; the other effects are of one channel.
        return Effects(overlaps=overlaps, sides=tuple(rng.choice(SIDES) for _ in range(num_events)))
    background = rng.choice(sorted(COLOURS)) if rng.random() < shares.background else None
    filter_ = rng.choice(("low_pass", "high_pass")) if rng.random() < shares.filter else None
    return Effects(
        overlaps=overlaps if any(overlaps) else (),
        background=background,
        snr_db=round(rng.uniform(*shares.snr_db), 1) if background else 0.0,
        reverb_seconds=round(rng.uniform(*REVERB_SECONDS), 2) if rng.random() < shares.reverb else 0.0,
        filter=filter_,
        cutoff_hz=round(rng.uniform(*(LOW_PASS_HZ if filter_ == "low_pass" else HIGH_PASS_HZ))) if filter_ else 0.0,
    )


def with_background(wave: np.ndarray, events_rms: float, colour: str, snr_db: float, seed: int) -> np.ndarray:
    """The scene `[S]` over noise whose RMS lies `snr_db` below `events_rms`."""
    noise = coloured_noise(len(wave), colour, seed)
    return wave + noise * np.float32(events_rms * 10 ** (-snr_db / 20))


def coloured_noise(num_samples: int, colour: str, seed: int) -> np.ndarray:
    """Noise `[S]` of RMS 1.

    Raises:
        KeyError: for a colour that is not in COLOURS.
    """
    size = _fast(num_samples)
    white = np.fft.rfft(np.random.default_rng(seed).standard_normal(size).astype(np.float32))
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ), LOWEST_NOISE_HZ)
    noise = np.fft.irfft(white * frequency ** -COLOURS[colour], size)[:num_samples]
    return (noise / np.sqrt(np.mean(np.square(noise)))).astype(np.float32)


def reverberated(wave: np.ndarray, seconds: float, seed: int) -> np.ndarray:
    """The scene with a diffuse tail that falls by 60 dB in `seconds`; as long as before, at the same RMS."""
    length = round(seconds * SAMPLE_RATE_HZ)
    time = np.arange(length) / SAMPLE_RATE_HZ
    tail = np.random.default_rng(seed).standard_normal(length) * 10 ** (-3 * time / seconds)
    size = _fast(len(wave) + length)
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: len(wave)]
    wet *= _rms(wave) / max(_rms(wet), 1e-9) * 10 ** (WET_DB / 20)
    both = wave + wet
    return (both * (_rms(wave) / max(_rms(both), 1e-9))).astype(np.float32)


def filtered(wave: np.ndarray, kind: str, cutoff_hz: float) -> np.ndarray:
    """What is left below (`low_pass`) or above (`high_pass`) the cutoff, with a slope of 300 Hz."""
    return low_passed(wave, cutoff_hz) if kind == "low_pass" else wave - low_passed(wave, cutoff_hz - 300)


def to_side(wave: np.ndarray, side: str) -> np.ndarray:
    """A sound `[S]` -> `[S, 2]`, heard from the left or the right: earlier and louder on that side."""
    delay = round(EAR_DISTANCE_METRES / SPEED_OF_SOUND * SAMPLE_RATE_HZ)
    far = np.concatenate([np.zeros(delay, np.float32), wave])[: len(wave)] * np.float32(10 ** (-SIDE_LEVEL_DB / 20))
    return np.stack((wave, far) if side == "left" else (far, wave), axis=1)


def _rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def _fast(num_samples: int) -> int:
    return -(-num_samples // FFT_STEP) * FFT_STEP
