"""An audio fingerprint that survives gain, codecs and small shifts, and an index that finds clips by it.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): 33 log-spaced bands of a frame's
spectrum give 32 bits, each the sign of how the difference of two neighbouring bands changes from frame to frame. Gain
cancels out; a codec flips few bits; long overlapping frames make the bits change slowly, so a shift costs little. Two
clips match where, at some offset, the share of differing bits is small. Speed and pitch changes are not matched.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

RATE_HZ = 16_000
"""Fingerprints are taken of clips at this rate."""
WINDOW_SAMPLES = 4096
HOP_SAMPLES = 512
LOWEST_HZ, HIGHEST_HZ = 200.0, 3400.0
"""Within the band of telephone speech, so that a clip is found behind a telephone."""
NUM_BANDS = 33
QUIET_RATIO = 1e-6
"""Frames with less than this share of the loudest frame's power carry no bits: those of silence are chance."""
MAX_ERROR_RATE = 0.25
"""Bits that may differ between two copies of one recording; unrelated clips differ in about half."""
MIN_FRAMES = 8
INDEX_STRIDE = 4
"""Frames of a stored clip that lie between two indexed ones; every frame is indexed in clips below SHORT_FRAMES."""
SHORT_FRAMES = 96
MAX_BUCKET = 256
"""Places that one key may lead to; a key that so many clips share tells nothing."""
CANDIDATES = 16


def fingerprint(wave: np.ndarray) -> np.ndarray:
    """A clip `[S]` at RATE_HZ -> `[F]` uint32, one word a frame of HOP_SAMPLES; 0 for quiet frames. Empty if silent."""
    wave = np.asarray(wave, np.float32)
    if not len(wave) or not np.any(wave):
        return np.zeros(0, np.uint32)
    padded = np.pad(wave, WINDOW_SAMPLES // 2)
    num_frames = 1 + (len(padded) - WINDOW_SAMPLES) // HOP_SAMPLES
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES][:num_frames]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW_SAMPLES).astype(np.float32), axis=1)) ** 2
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, NUM_BANDS + 1) * WINDOW_SAMPLES / RATE_HZ
    sums = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1, dtype=np.float64)], axis=1)
    bounds = np.round(edges).astype(int)
    bands = sums[:, np.maximum(bounds[1:], bounds[:-1] + 1)] - sums[:, bounds[:-1]]
    slope = np.diff(bands, axis=1)
    bits = (np.diff(slope, axis=0) > 0).astype(np.uint32)
    words = bits @ (np.uint32(1) << np.arange(NUM_BANDS - 1, dtype=np.uint32))
    total = bands.sum(axis=1)
    if not total.max():
        return np.zeros(0, np.uint32)
    return np.where(np.minimum(total[1:], total[:-1]) > QUIET_RATIO * total.max(), words, 0).astype(np.uint32)


def error_rate(first: np.ndarray, second: np.ndarray, offset: int) -> tuple[float, int]:
    """The share of differing bits where `second[i]` lies on `first[i + offset]`, and how many frames that compares."""
    start, stop = max(0, offset), min(len(first), len(second) + offset)
    if stop <= start:
        return 1.0, 0
    one, other = first[start:stop], second[start - offset : stop - offset]
    heard = (one != 0) & (other != 0)
    count = int(heard.sum())
    if not count:
        return 1.0, 0
    return float(np.bitwise_count(one[heard] ^ other[heard]).sum()) / (32 * count), count


@dataclass(frozen=True)
class Match:
    """A stored clip that sounds like the one asked for; `error_rate` is the share of differing bits."""

    id: str
    error_rate: float
    offset_seconds: float


class FingerprintIndex:
    """Stored fingerprints, found by halves of their words and confirmed bit by bit.

    About 4 bytes a stored frame (31 a second) and 50 to 100 bytes an indexed one (8 a second).
    """

    def __init__(self, *, max_error_rate: float = MAX_ERROR_RATE, min_share: float = 0.5):
        """`min_share` is how much of the shorter clip must lie on the longer one, 0 to 1."""
        self.max_error_rate, self.min_share = max_error_rate, min_share
        self._ids: list[str] = []
        self._prints: list[np.ndarray] = []
        self._places: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def add(self, id_: str, words: np.ndarray) -> None:
        """Stores a clip. One of too few frames is stored and never found: its samples' hash has to serve."""
        number = len(self._ids)
        self._ids.append(id_)
        self._prints.append(words)
        stride = INDEX_STRIDE if len(words) >= SHORT_FRAMES else 1
        for frame in range(0, len(words), stride):
            for key in _keys(int(words[frame])):
                places = self._places[key]
                if len(places) < MAX_BUCKET:
                    places.append((number, frame))

    def find(self, words: np.ndarray) -> Match | None:
        """The stored clip that matches best; None if none does."""
        votes: Counter[tuple[int, int]] = Counter()
        for frame, word in enumerate(words.tolist()):
            for key in _keys(word):
                for number, place in self._places.get(key, ()):
                    votes[number, place - frame] += 1
        best: Match | None = None
        for (number, offset), _ in sorted(votes.items(), key=lambda item: (-item[1], item[0]))[:CANDIDATES]:
            rate, count = error_rate(self._prints[number], words, offset)
            needed = max(MIN_FRAMES, self.min_share * min(len(words), len(self._prints[number])))
            if count >= needed and rate <= self.max_error_rate and (best is None or rate < best.error_rate):
                best = Match(self._ids[number], rate, offset * HOP_SAMPLES / RATE_HZ)
        return best


def _keys(word: int) -> tuple[int, ...]:
    """Both halves of a word, told apart; none for a quiet frame or a half without any contrast."""
    if not word:
        return ()
    low, high = word & 0xFFFF, word >> 16
    return tuple(key for key, half in ((low, low), (high | 1 << 16, high)) if 0 < half < 0xFFFF)
