"""A SoundFont 2 file as a source: instruments by their General MIDI names, notes and short phrases rendered in numpy.

Package: timgm6mb-soundfont (GPL-2). The reader covers what General MIDI melodic presets use: zones by key and
velocity, loops, tuning, the volume envelope and a fixed low-pass; no modulators, no chorus or reverb.
Format: SoundFont Technical Specification 2.01. The group of a clip is its preset, so a preset of the test was never
heard in training in any note.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from data_builders.clips import SAMPLE_RATE_HZ, Clip, Skipped, seeded
from data_builders.debs import Fetched, Package
from data_builders.variants import FFT_STEP
from lalm.errors import DataError

PACKAGES = (
    Package(
        "timgm6mb-soundfont", (".sf2",), {"1.3-5": "034abdfb296d9353433513dad5dbdcab46425ee6008fc02fe7039b46e75edc54"}
    ),
)
LICENCE = "GPL-2"

INSTRUMENTS: dict[str, dict[str, tuple[int, ...]]] = {
    # What a listener would call it, the General MIDI programs (from 0) that are it, and the keys that it plays.
    # Harmonica, reed organ and steel drum are left out: each lies between two names.
    "piano": {"programs": (0, 1, 2, 3), "keys": (48, 84)},
    "organ": {"programs": (16, 17, 18, 19), "keys": (48, 79)},
    "accordion": {"programs": (21, 23), "keys": (55, 84)},
    "guitar": {"programs": (24, 25, 26, 27), "keys": (45, 76)},
    "bass guitar": {"programs": (32, 33, 34, 35), "keys": (28, 50)},
    "violin": {"programs": (40, 41, 110), "keys": (58, 86)},
    "string orchestra": {"programs": (44, 48, 49), "keys": (52, 84)},
    "choir": {"programs": (52, 53, 54), "keys": (52, 76)},
    "brass": {"programs": (56, 57, 59, 61, 62), "keys": (55, 79)},
    "saxophone": {"programs": (64, 65, 66, 67), "keys": (46, 74)},
    "flute": {"programs": (72, 73, 74, 75), "keys": (65, 91)},
    "chime": {"programs": (9, 10, 14, 98), "keys": (65, 91)},
    "xylophone": {"programs": (11, 12, 13), "keys": (53, 84)},
}
CLIPS_PER_PROGRAM = 12

MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11, 12)
TAIL_SECONDS = 0.4
"""How long a note may ring after its key is let go."""
RENDER_RATE_HZ = 32_000
_KEYS, _VELOCITIES, _INSTRUMENT, _SAMPLE, _MODES, _ROOT = 43, 44, 41, 53, 54, 58
_COARSE, _FINE, _SCALE, _ATTENUATION, _CUTOFF = 51, 52, 56, 48, 8
_ATTACK, _HOLD, _DECAY, _SUSTAIN, _RELEASE = 34, 35, 36, 37, 38
_DEFAULTS = {
    _SCALE: 100,
    _CUTOFF: 13_500,
    _ATTACK: -12_000,
    _HOLD: -12_000,
    _DECAY: -12_000,
    _RELEASE: -12_000,
    _ROOT: -1,
}
_NOT_ADDED = {_KEYS, _VELOCITIES, _INSTRUMENT, _SAMPLE, _MODES, _ROOT}


@dataclass(frozen=True)
class Zone:
    """One sample with the generators that play it, for a range of keys and velocities."""

    keys: tuple[int, int]
    velocities: tuple[int, int]
    sample: int
    values: dict[int, int]


class SoundFont:
    """The samples and the bank-0 presets of one `.sf2` file.

    Raises:
        DataError: for a file that is no SoundFont 2.
    """

    def __init__(self, path: Path):
        chunks = _riff_chunks(path)
        try:
            self.samples = np.frombuffer(chunks["smpl"], "<i2").astype(np.float32) / 32768
            self.headers = _table(chunks["shdr"], "<20sIIIIIBbHH")
            instruments = _table(chunks["inst"], "<20sH")
            presets = _table(chunks["phdr"], "<20sHHHIII")
            self._instrument_bags = _Bags(chunks["ibag"], chunks["igen"], [row[1] for row in instruments])
            preset_bags = _Bags(chunks["pbag"], chunks["pgen"], [row[3] for row in presets])
        except (KeyError, struct.error) as error:
            raise DataError(f"{path}: is not a whole SoundFont 2 file (missing or damaged: {error}).") from None
        self.names: dict[int, str] = {}
        self.presets: dict[int, list[Zone]] = {}
        for number, (name, program, bank, *_) in enumerate(presets[:-1]):
            if bank == 0:
                self.names[program] = name.split(b"\0")[0].decode("latin-1").strip()
                self.presets[program] = self._zones(preset_bags.zones(number, _INSTRUMENT))

    def note(self, program: int, key: int, velocity: int, held_seconds: float, release_seconds: float) -> np.ndarray:
        """One note, [S] float32 at RENDER_RATE_HZ, `held_seconds + release_seconds` long.

        Raises:
            DataError: if the file has no such program in bank 0.
        """
        if program not in self.presets:
            raise DataError(f"SoundFont: no program {program} in bank 0; it has {sorted(self.presets)}.")
        total = np.zeros(round((held_seconds + release_seconds) * RENDER_RATE_HZ), np.float32)
        for zone in self.presets[program]:
            if zone.keys[0] <= key <= zone.keys[1] and zone.velocities[0] <= velocity <= zone.velocities[1]:
                total += self._voice(zone, key, held_seconds, len(total))
        return total * (velocity / 127) ** 2

    def _zones(self, preset_zones: list[dict[int, int]]) -> list[Zone]:
        zones = []
        for outer in preset_zones:
            for inner in self._instrument_bags.zones(outer[_INSTRUMENT], _SAMPLE):
                keys = _overlap(inner.get(_KEYS), outer.get(_KEYS))
                velocities = _overlap(inner.get(_VELOCITIES), outer.get(_VELOCITIES))
                values = {**_DEFAULTS, **inner}
                for generator, amount in outer.items():
                    if generator not in _NOT_ADDED:
                        values[generator] = values.get(generator, 0) + amount
                zones.append(Zone(keys, velocities, inner[_SAMPLE], values))
        return zones

    def _voice(self, zone: Zone, key: int, held_seconds: float, num_samples: int) -> np.ndarray:
        value = zone.values
        _, start, end, loop_start, loop_end, rate, root, correction, *_ = self.headers[zone.sample]
        start += value.get(0, 0) + 32768 * value.get(4, 0)
        end += value.get(1, 0) + 32768 * value.get(12, 0)
        loop_start += value.get(2, 0) + 32768 * value.get(45, 0)
        loop_end += value.get(3, 0) + 32768 * value.get(50, 0)
        root = value[_ROOT] if value[_ROOT] >= 0 else root
        cents = (key - root) * value[_SCALE] + 100 * value.get(_COARSE, 0) + value.get(_FINE, 0) + correction
        place = start + np.arange(num_samples) * (2 ** (cents / 1200) * rate / RENDER_RATE_HZ)
        if value.get(_MODES, 0) & 1 and loop_end > loop_start:
            place = np.where(place >= loop_end, loop_start + (place - loop_start) % (loop_end - loop_start), place)
        inside = place < end - 1
        place = np.where(inside, place, start)
        whole = place.astype(np.int64)
        part = (place - whole).astype(np.float32)
        wave = np.where(inside, self.samples[whole] * (1 - part) + self.samples[whole + 1] * part, 0)
        wave = _low_passed(wave, 8.176 * 2 ** (value[_CUTOFF] / 1200))
        return wave * _envelope(value, held_seconds, num_samples) * 10 ** (-value.get(_ATTENUATION, 0) * 0.4 / 200)


@dataclass(frozen=True)
class Phrase:
    """A few notes by one preset: MIDI keys and velocities, `beat_seconds` apart."""

    program: int
    keys: tuple[int, ...]
    velocities: tuple[int, ...]
    beat_seconds: float

    @property
    def seconds(self) -> float:
        return self.beat_seconds * len(self.keys) + TAIL_SECONDS


def read_clips(fetched: dict[str, Fetched], seed: int) -> tuple[list[Clip], list[Skipped]]:
    """Phrases of one to five notes for every instrument name, CLIPS_PER_PROGRAM for each of its presets."""
    package = fetched["timgm6mb-soundfont"]
    path = package.folder / next(name for name in package.members if name.endswith(".sf2"))
    names = open_soundfont(path).names
    clips, skipped = [], []
    for label, entry in INSTRUMENTS.items():
        for program in entry["programs"]:
            if program not in names:
                skipped.append(Skipped(f"gm-{program:03d}", "no such program in this SoundFont"))
                continue
            for number in range(CLIPS_PER_PROGRAM):
                clip_id = f"gm-{program:03d}-{number:02d}"
                phrase = plan_phrase(program, entry["keys"], seeded(seed, clip_id))
                clips.append(
                    Clip(
                        id=clip_id,
                        path=None,
                        seconds=phrase.seconds,
                        source=package.name,
                        licence=LICENCE,
                        group=f"gm-{program:03d}",
                        kind="instrument",
                        label=label,
                        facts={"notes": list(phrase.keys), "beat_seconds": phrase.beat_seconds},
                        provenance={
                            "package": package.name,
                            "version": package.version,
                            "program": program,
                            "preset": names[program],
                            "notes": list(phrase.keys),
                        },
                        render=partial(render_phrase, path, phrase),
                    )
                )
    return clips, skipped


@cache
def open_soundfont(path: Path) -> SoundFont:
    """The file, read once a process."""
    return SoundFont(path)


def plan_phrase(program: int, keys: tuple[int, ...], rng: random.Random) -> Phrase:
    """One to five notes of one major scale within the keys of an instrument."""
    num_notes = rng.choice((1, 2, 3, 3, 4, 5))
    root = rng.randint(keys[0], max(keys[0], keys[1] - 12))
    return Phrase(
        program=program,
        keys=tuple(root + rng.choice(MAJOR_SCALE) for _ in range(num_notes)),
        velocities=tuple(rng.randint(80, 120) for _ in range(num_notes)),
        beat_seconds=round(rng.uniform(0.22, 0.5) if num_notes > 1 else rng.uniform(0.8, 1.6), 3),
    )


def render_phrase(path: Path, phrase: Phrase) -> np.ndarray:
    """A phrase as [S] float32, see `render_beats`."""
    beats = [((key,), velocity) for key, velocity in zip(phrase.keys, phrase.velocities, strict=True)]
    return render_beats(path, phrase.program, beats, phrase.beat_seconds)


def render_beats(
    path: Path, program: int, beats: Sequence[tuple[Sequence[int], int]], beat_seconds: float
) -> np.ndarray:
    """Keys and a velocity for every beat -> [S] float32 at SAMPLE_RATE_HZ, peak 0.7 (or silence, where the preset gives
    none)."""
    import soxr

    font = open_soundfont(path)
    seconds = beat_seconds * len(beats) + TAIL_SECONDS
    total = np.zeros(round(seconds * RENDER_RATE_HZ) + 1, np.float32)
    for number, (keys, velocity) in enumerate(beats):
        at = round(number * beat_seconds * RENDER_RATE_HZ)
        for key in keys:
            note = font.note(program, key, velocity, beat_seconds * 0.95, TAIL_SECONDS)
            total[at : at + len(note)] += note[: len(total) - at]
    wave = soxr.resample(total, RENDER_RATE_HZ, SAMPLE_RATE_HZ).astype(np.float32)
    peak = float(np.abs(wave).max(initial=0))
    return wave * np.float32(0.7 / peak) if peak > 1e-3 else wave


def _envelope(value: dict[int, int], held_seconds: float, num_samples: int) -> np.ndarray:
    """Attack linear, decay and release linear in decibels over 100 dB, as the specification has it."""
    time = np.arange(num_samples) / RENDER_RATE_HZ
    attack, hold = _seconds(value[_ATTACK]), _seconds(value[_HOLD])
    decay, release = _seconds(value[_DECAY]), max(_seconds(value[_RELEASE]), 0.02)
    floor_db = -min(value.get(_SUSTAIN, 0), 1000) / 10
    level_db = np.maximum(-100 * np.clip(time - attack - hold, 0, None) / max(decay, 1e-3), floor_db)
    rise = np.minimum(time / max(attack, 1e-3), 1)
    level_db = level_db - 100 * np.clip(time - held_seconds, 0, None) / release
    return (rise * 10 ** (level_db / 20)).astype(np.float32)


def _low_passed(wave: np.ndarray, cutoff_hz: float) -> np.ndarray:
    if cutoff_hz >= RENDER_RATE_HZ / 2:
        return wave
    size = -(-len(wave) // FFT_STEP) * FFT_STEP
    frequency = np.fft.rfftfreq(size, 1 / RENDER_RATE_HZ)
    damped = np.fft.rfft(wave, size) / np.sqrt(1 + (frequency / cutoff_hz) ** 4)
    return np.fft.irfft(damped, size)[: len(wave)].astype(np.float32)


def _seconds(timecents: int) -> float:
    return 2 ** (timecents / 1200)


def _overlap(first: int | None, second: int | None) -> tuple[int, int]:
    low, high = 0, 127
    for amount in (first, second):
        if amount is not None:
            low, high = max(low, amount & 0xFF), min(high, amount >> 8 & 0xFF)
    return low, high


class _Bags:
    """The zones of presets or instruments: each zone a dict of generator -> amount, the global zone merged in."""

    def __init__(self, bags: bytes, generators: bytes, first_bag: list[int]):
        self.bags = [row[0] for row in _table(bags, "<HH")]
        self.generators = _table(generators, "<Hh")
        self.first_bag = first_bag

    def zones(self, owner: int, closing: int) -> list[dict[int, int]]:
        """The zones of one owner that name an instrument or a sample (the `closing` generator)."""
        common: dict[int, int] = {}
        zones = []
        for bag in range(self.first_bag[owner], self.first_bag[owner + 1]):
            rows = self.generators[self.bags[bag] : self.bags[bag + 1]]
            zone = {kind: (amount & 0xFFFF if kind in _NOT_ADDED - {_ROOT} else amount) for kind, amount in rows}
            if closing in zone:
                zones.append({**common, **zone})
            elif bag == self.first_bag[owner]:
                common = zone
        return zones


def _table(data: bytes, layout: str) -> list[tuple]:
    return list(struct.iter_unpack(layout, data))


def _riff_chunks(path: Path) -> dict[str, bytes]:
    """Every leaf chunk of the file by its name; LIST chunks are walked into."""
    data = path.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
        raise DataError(f"{path}: is not a SoundFont 2 file.")
    chunks: dict[str, bytes] = {}

    def walk(at: int, end: int) -> None:
        while at + 8 <= end:
            name, size = data[at : at + 4].decode("latin-1"), int.from_bytes(data[at + 4 : at + 8], "little")
            if name == "LIST":
                walk(at + 12, at + 8 + size)
            else:
                chunks[name] = data[at + 8 : at + 8 + size]
            at += 8 + size + size % 2

    walk(12, len(data))
    return chunks
