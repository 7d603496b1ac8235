"""Scenes: two to four events one after another, with the exact truth of what sounds when, for how long and how loud.

The scene is the source of truth; every question about it is computed from its events. A scene takes its clips from
one split only. Planning (which clips, order, levels) needs no audio; composing loads and mixes it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from data_builders.clips import SAMPLE_RATE_HZ, Clip
from data_builders.effects import PLAIN, Effects, filtered, reverberated, to_side, with_background
from data_builders.variants import at_level, faded, trimmed

LONGEST_EVENT_SECONDS = 1.7
LONGEST_SCENE_SECONDS = 8.0
LEVELS_DB = (-34.0, -26.0, -18.0)
"""RMS levels, 8 dB apart: two events at different levels differ audibly."""
SHORTEST_COVERED_SECONDS = 0.5
"""A shorter event is not covered by the next one: nobody would hear which came first."""
SPEECH_LABEL = "speech"


@dataclass(frozen=True)
class Event:
    """One sound of a scene. Times in seconds from the start of the scene, level (RMS) and peak in dB of full scale."""

    label: str
    clip: str
    group: str
    onset: float
    duration: float
    level_db: float
    peak_db: float
    side: str | None = None
    """left or right, in a scene of two channels"""

    @property
    def end(self) -> float:
        return round(self.onset + self.duration, 3)


@dataclass(frozen=True)
class Scene:
    """What is known of a composed clip: its events in the order they begin."""

    events: tuple[Event, ...]
    effects: dict[str, Any] = field(default_factory=dict)
    """What was done to the whole: background and its SNR, reverberation, filters."""

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(event.label for event in self.events)

    @cached_property
    def distinct(self) -> tuple[str, ...]:
        """The labels, each once, by name."""
        return tuple(sorted(set(self.labels)))

    @cached_property
    def single(self) -> tuple[Event, ...]:
        """The events that are the only ones of their label, in order."""
        return tuple(event for event in self.events if self.labels.count(event.label) == 1)

    def only(self, label: str) -> Event | None:
        """The event of that label when there is exactly one, else None."""
        return next((event for event in self.single if event.label == label), None)

    def to_json(self) -> list[dict[str, object]]:
        return [{key: value for key, value in vars(event).items() if value is not None} for event in self.events]

    @cached_property
    def overlaps(self) -> bool:
        """Whether any two events sound at the same time."""
        return any(later.onset < event.end for event, later in pairwise(self.events))


@dataclass(frozen=True)
class ScenePlan:
    """What a scene will be made of, before any audio is read."""

    clips: tuple[Clip, ...]
    levels_db: tuple[float, ...]
    gaps: tuple[float, ...]
    effects: Effects = PLAIN


def plan_scene(bank: Mapping[str, Sequence[Clip]], rng: random.Random) -> ScenePlan:
    """Draws two to four events from a bank of clips by label; one in four scenes has a label twice, apart.

    Raises:
        ValueError: if the bank has fewer than four labels.
    """
    if len(bank) < 4:
        raise ValueError(f"a scene needs a bank of at least 4 labels, not {sorted(bank)}")
    num_events = rng.choice((2, 2, 3, 3, 3, 4, 4))
    labels = rng.sample(sorted(bank), num_events)
    if num_events > 2 and rng.random() < 0.35:
        # Never side by side: two phrases of a flute in a row are one longer phrase to a listener.
        first, second = rng.choice([(0, 2)] if num_events == 3 else [(0, 2), (0, 3), (1, 3)])
        labels[second] = labels[first]
    levels = [rng.choice(LEVELS_DB) for _ in labels]
    if len(set(levels)) == 1:
        levels[rng.randrange(num_events)] = rng.choice([level for level in LEVELS_DB if level != levels[0]])
    return ScenePlan(
        clips=tuple(rng.choice(bank[label]) for label in labels),
        levels_db=tuple(levels),
        gaps=tuple(round(rng.uniform(0.12, 0.45), 3) for _ in range(num_events + 1)),
    )


def compose(plan: ScenePlan, waves: Sequence[np.ndarray], rng: random.Random) -> tuple[np.ndarray, Scene]:
    """Mixes the planned events: ([S] float32 at SAMPLE_RATE_HZ, the truth). `waves` are the clips at that rate.

    Raises:
        ValueError: if a clip is silent.
    """
    parts, events = [], []
    cursor = round(plan.gaps[0] * SAMPLE_RATE_HZ)
    overlaps, sides = plan.effects.overlaps, plan.effects.sides
    for place, (clip, level_db, gap, wave) in enumerate(
        zip(plan.clips, plan.levels_db, plan.gaps[1:], waves, strict=True)
    ):
        part = faded(_whole_milliseconds(trimmed(wave, rng.uniform(0.5, LONGEST_EVENT_SECONDS))), 0.02)
        if not len(part):
            raise ValueError(f"{clip.id} is silent")
        part = at_level(part, level_db)
        # A hit of a few milliseconds has a peak far above its RMS; clipped it would be neither that sound nor so loud.
        peak = float(np.abs(part).max())
        part, level_db = (
            (part * 0.98 / peak, level_db + 20 * np.log10(0.98 / peak)) if peak > 0.98 else (part, level_db)
        )
        events.append(
            Event(
                scene_label(clip),
                clip.id,
                clip.group,
                round(cursor / SAMPLE_RATE_HZ, 3),
                round(len(part) / SAMPLE_RATE_HZ, 3),
                round(float(level_db), 1),
                round(20 * float(np.log10(min(peak, 0.98))), 1),
                sides[place] if sides else None,
            )
        )
        parts.append((cursor, to_side(part, sides[place]) if sides else part))
        covered = overlaps[place] if place < len(overlaps) else 0.0
        if covered and len(part) >= SHORTEST_COVERED_SECONDS * SAMPLE_RATE_HZ:
            cursor += _milliseconds(len(part) * (1 - covered))
        else:
            cursor += len(part) + round(gap * SAMPLE_RATE_HZ)
    length = max([cursor, *(start + len(part) for start, part in parts)])
    total = np.zeros((length, *parts[0][1].shape[1:]), np.float32)
    for start, part in parts:
        total[start : start + len(part)] += part
    noise = np.asarray(np.random.default_rng(rng.getrandbits(32)).standard_normal(total.shape), np.float32)
    total += noise * 10 ** (-62 / 20)
    if plan.effects == PLAIN:
        return total, Scene(tuple(events))
    sounding = np.concatenate([np.ravel(part) for _, part in parts])
    total = _changed(total, plan.effects, float(np.sqrt(np.mean(np.square(sounding)))), rng)
    peak = float(np.abs(total).max())
    if peak > 0.98:
        total, lower = total * np.float32(0.98 / peak), 20 * float(np.log10(0.98 / peak))
        events = [
            replace(event, level_db=round(event.level_db + lower, 1), peak_db=round(event.peak_db + lower, 1))
            for event in events
        ]
    return total, Scene(tuple(events), plan.effects.to_json())


def _changed(wave: np.ndarray, effects: Effects, events_rms: float, rng: random.Random) -> np.ndarray:
    """The mixed events with the effects of the whole: reverberation, then background, then filter."""
    if effects.reverb_seconds:
        wave = reverberated(wave, effects.reverb_seconds, rng.getrandbits(32))
    if effects.background:
        wave = with_background(wave, events_rms, effects.background, effects.snr_db, rng.getrandbits(32))
    return filtered(wave, effects.filter, effects.cutoff_hz) if effects.filter else wave


def _milliseconds(samples: float) -> int:
    """Whole milliseconds, in samples: onsets are stored so, and are exact."""
    step = SAMPLE_RATE_HZ // 1000
    return int(samples) // step * step


def _whole_milliseconds(wave: np.ndarray) -> np.ndarray:
    """The truth is stored in milliseconds; so cut, it is exact to the sample."""
    return wave[: len(wave) - len(wave) % (SAMPLE_RATE_HZ // 1000)]


def scene_label(clip: Clip) -> str:
    """How a scene names a clip: its label, or SPEECH_LABEL."""
    return SPEECH_LABEL if clip.kind == "speech" else clip.label or ""
