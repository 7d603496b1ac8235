"""Random changes of clips before the encoder: gain, noise, speed, another clip, and SpecAugment on the features.

Every draw follows from the recipe's seed, the optimizer step and the clip, so that a resumed run hears the same.
No change moves the end of a clip, so its audio positions stay those that the prompt was made for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lalm.recipe.schema import AugmentSection

NOISE_RANGE_DB = 20.0
MIXED_QUIETER_DB = 10.0


def generator(seed: int, step: int, clip: str) -> np.random.Generator:
    """The random numbers of one clip in one optimizer step."""
    key = hashlib.sha256(f"{seed}/{step}/{clip}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "little"))


def augment_waveform(
    wave: np.ndarray,
    options: AugmentSection,
    rng: np.random.Generator,
    other: Callable[[np.random.Generator], np.ndarray | None] | None = None,
) -> np.ndarray:
    """A changed copy of `wave [S]`, as long as it was.

    Args:
        other: gives a clip to mix in; not asked without `mix_probability`.
    """
    changed = wave.astype(np.float32, copy=True)
    if options.speed > 1:
        changed = faster(changed, rng.uniform(1.0, options.speed))
    if options.mix_probability > 0 and rng.random() < options.mix_probability and other is not None:
        guest = other(rng)
        if guest is not None and len(guest):
            start = int(rng.integers(0, max(1, len(guest) - len(changed) + 1)))
            piece = guest[start : start + len(changed)]
            ratio = power(changed) / max(power(piece), 1e-12)
            changed[: len(piece)] += piece * np.float32(np.sqrt(ratio * 10 ** (-MIXED_QUIETER_DB / 10)))
    if options.noise_db is not None:
        ratio_db = options.noise_db + rng.uniform(0.0, NOISE_RANGE_DB)
        level = np.sqrt(power(changed) / 10 ** (ratio_db / 10))
        changed += (level * rng.standard_normal(len(changed))).astype(np.float32)
    if options.gain_db:
        changed *= np.float32(10 ** (rng.uniform(-options.gain_db, options.gain_db) / 20))
    return np.clip(changed, -1.0, 1.0)


def faster(wave: np.ndarray, factor: float) -> np.ndarray:
    """`wave [S]` played `factor` times faster by linear interpolation, with silence behind it up to `S`."""
    places = np.arange(0, len(wave) - 1 + 1e-9, factor)
    played = np.interp(places, np.arange(len(wave)), wave).astype(np.float32)
    return np.pad(played, (0, len(wave) - len(played)))


def power(wave: np.ndarray) -> float:
    """Mean square of a waveform."""
    return float(np.mean(np.square(wave, dtype=np.float64))) if len(wave) else 0.0


def mask_features(inputs: dict[str, Any], options: AugmentSection, rng: np.random.Generator) -> dict[str, Any]:
    """SpecAugment on `input_features` (of each encoder `[N, M, F]`): a band of bins and a span of frames of each chunk
    take the chunk's mean over its real frames."""
    if not (options.mask_bins or options.mask_frames):
        return inputs
    features = [item.clone() for item in inputs["input_features"]]
    for stacked, lengths in zip(features, inputs["feature_lengths"], strict=True):
        for chunk, length in zip(stacked, lengths.tolist(), strict=True):
            real = chunk[:, :length]
            mean = real.mean() if length else torch.tensor(0.0)
            for size, dimension in ((options.mask_bins, 0), (options.mask_frames, 1)):
                width = int(rng.integers(0, min(size, real.shape[dimension]) + 1))
                start = int(rng.integers(0, real.shape[dimension] - width + 1))
                real.narrow(dimension, start, width).fill_(float(mean))
    return {**inputs, "input_features": features}
