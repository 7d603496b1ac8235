"""Invented records and sounds that the tests of filters share."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
from scipy import signal

from lalm.data.records import Record, Turn

RATE = 16000


def make_record(number: int = 0, question: str = "What is heard?", answer: str = "A dog.", **fields: Any) -> Record:
    turns = (Turn(role="user", content=question), Turn(role="assistant", content=answer))
    return Record(**{"id": f"r{number}", "audio": (f"clips/{number}.wav",), "turns": turns, **fields})


def sound(seed, seconds=3.0):
    """Noise whose bands come and go, with a gliding tone: unlike any other seed's."""
    rng = np.random.default_rng(seed)
    num = int(RATE * seconds)
    time = np.arange(num) / RATE
    out = np.zeros(num)
    for _ in range(12):
        low = rng.uniform(200, 3000)
        band = signal.sosfilt(signal.butter(2, [low, low * 1.3], "band", fs=RATE, output="sos"), rng.normal(size=num))
        out += band * (1 + np.sin(2 * np.pi * rng.uniform(0.5, 4) * time + rng.uniform(0, 6)))
    out += 0.3 * np.sin(
        2 * np.pi * np.cumsum(rng.uniform(300, 1500) * (1 + 0.3 * np.sin(time * rng.uniform(1, 5)))) / RATE
    )
    return (0.2 * out / np.abs(out).max()).astype(np.float32)


def ogg(wave):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, RATE, format="OGG", subtype="VORBIS")
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")[0]
