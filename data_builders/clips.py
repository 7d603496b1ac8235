"""The clip: one recording of known content, as every source yields it and every later step passes it on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

SAMPLE_RATE_HZ = 16_000
"""Every clip that a set holds is stored at this rate, whatever its source had."""
LANGUAGES = ("English", "French", "Italian", "Russian", "Spanish")

Kind = Literal["speech", "sound", "instrument"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Clip:
    """One source recording (or one rendered phrase) with what is known about it.

    `group` names what must never be torn apart by a split: the same prompt in all languages, an instrument preset.
    `facts` holds what a question family needs beyond the common fields: the prompt's key, a digit, a letter.
    """

    id: str
    path: Path | None
    seconds: float
    source: str
    licence: str
    group: str
    kind: Kind
    language: str | None = None
    text: str | None = None
    label: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    render: Callable[[], np.ndarray] | None = field(default=None, compare=False, repr=False)
    """Gives [S] float32 at SAMPLE_RATE_HZ, for a clip that is made and has no file; picklable, as workers call it."""


@dataclass(frozen=True)
class Skipped:
    """A recording that a source lists and that cannot be used, with the reason."""

    id: str
    reason: str


def seeded(*names: object) -> random.Random:
    """A generator that depends on the names alone, so that no order of work and no number of workers changes a draw."""
    return random.Random(seed_of(*names))


def seed_of(*names: object) -> bytes:
    """What sets the generator of some names."""
    return hashlib.sha256(":".join(map(str, names)).encode()).digest()
