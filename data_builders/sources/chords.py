"""Chords by the presets of a SoundFont, as a source: single chords, and cadences whose key and tempo are exact.

Package: timgm6mb-soundfont (GPL-2), the reader and the instruments of `soundfont.py`. A clip's group is its preset, the
same as there, so that a preset of the test was heard in training by neither source.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_builders.clips import Clip, Skipped, seeded
from data_builders.debs import Fetched
from data_builders.questions.music import CHORDS
from data_builders.questions.told import TONICS
from data_builders.sources.soundfont import (
    INSTRUMENTS,
    LICENCE,
    PACKAGES,
    TAIL_SECONDS,
    open_soundfont,
    render_beats,
)

__all__ = ["PACKAGES", "read_clips"]

LABELS = ("piano", "organ", "accordion", "guitar", "string orchestra", "choir")
"""Instruments that play several notes at once."""
CHORDS_PER_PROGRAM = 8
CADENCES_PER_PROGRAM = 4
CADENCES = {
    # half tones above the tonic, and the kind of each chord; the last is the tonic's own
    "major": ((0, "major"), (5, "major"), (7, "dominant seventh"), (0, "major")),
    "minor": ((0, "minor"), (5, "minor"), (7, "dominant seventh"), (0, "minor")),
}
CHORD_SECONDS = 1.2
SLOWEST_BPM, FASTEST_BPM = 60, 140


@dataclass(frozen=True)
class Progression:
    """Chords by one preset, one a beat: MIDI keys of each."""

    program: int
    chords: tuple[tuple[int, ...], ...]
    velocity: int
    beat_seconds: float

    @property
    def seconds(self) -> float:
        return self.beat_seconds * len(self.chords) + TAIL_SECONDS


def read_clips(fetched: dict[str, Fetched], seed: int) -> tuple[list[Clip], list[Skipped]]:
    """For every preset of LABELS its single chords (fact `chord`) and its cadences (facts `key`, `tempo_bpm`)."""
    package = fetched["timgm6mb-soundfont"]
    path = package.folder / next(name for name in package.members if name.endswith(".sf2"))
    names = open_soundfont(path).names
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for label in LABELS:
        for program in INSTRUMENTS[label]["programs"]:
            if program not in names:
                skipped.append(Skipped(f"chord-{program:03d}", "no such program in this SoundFont"))
                continue
            for number in range(CHORDS_PER_PROGRAM + CADENCES_PER_PROGRAM):
                clip_id = f"chord-{program:03d}-{number:02d}"
                rng = seeded(seed, clip_id)
                plan = plan_chord if number < CHORDS_PER_PROGRAM else plan_cadence
                progression, facts = plan(program, INSTRUMENTS[label]["keys"], rng)
                clips.append(
                    Clip(
                        id=clip_id,
                        path=None,
                        seconds=progression.seconds,
                        source=package.name,
                        licence=LICENCE,
                        group=f"gm-{program:03d}",
                        kind="instrument",
                        label=label,
                        facts=facts,
                        provenance={
                            "package": package.name,
                            "version": package.version,
                            "program": program,
                            "preset": names[program],
                            "chords": [list(chord) for chord in progression.chords],
                        },
                        render=partial(render_progression, path, progression),
                    )
                )
    return clips, skipped


def plan_chord(program: int, keys: tuple[int, ...], rng: random.Random) -> tuple[Progression, dict[str, object]]:
    """One chord of a kind drawn evenly, in root position."""
    kind = rng.choice(tuple(CHORDS))
    root = rng.randint(keys[0], keys[1] - 12)
    chord = tuple(root + step for step in CHORDS[kind])
    return Progression(program, (chord,), rng.randint(80, 110), CHORD_SECONDS), {"chord": kind}


def plan_cadence(program: int, keys: tuple[int, ...], rng: random.Random) -> tuple[Progression, dict[str, object]]:
    """I, IV, V7, I (or i, iv, V7, i) on a tonic drawn evenly, at a tempo drawn evenly."""
    mode, tonic = rng.choice(tuple(CADENCES)), rng.randrange(len(TONICS))
    bpm = rng.randint(SLOWEST_BPM, FASTEST_BPM)
    root = keys[0] + (tonic - keys[0]) % 12
    chords = tuple(tuple(root + above + step for step in CHORDS[kind]) for above, kind in CADENCES[mode])
    facts: dict[str, object] = {"key": f"{TONICS[tonic]} {mode}", "tempo_bpm": bpm}
    return Progression(program, chords, rng.randint(80, 110), round(60 / bpm, 3)), facts


def render_progression(path: Path, progression: Progression) -> np.ndarray:
    """[S] float32, see `render_beats`."""
    beats = [(chord, progression.velocity) for chord in progression.chords]
    return render_beats(path, progression.program, beats, progression.beat_seconds)
